import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { errorBody, FakeApi, failing, type RunOptions, run, sendJson } from './fixture.ts';

let api: FakeApi;
let env: Record<string, string>;

beforeEach(async () => {
  api = new FakeApi();
  env = { KILN_API: await api.listen(), KILN_KEY: 'msk_test' };
  api.addDeployment('shop', { active_version_id: 'ver_shop2' });
  api.addVersion('dep_shop', 1);
  api.addVersion('dep_shop', 2, { stage_times: { plan: 100, build: 400 } });
  api.addDeployment('blog', { state: 'pending' });
});
afterEach(() => api.close());

const kiln = (argv: string[], o: RunOptions = {}) => run(argv, { env, ...o });
const bodyOf = (path: string) => api.seen.find((one) => one.path === path && one.method !== 'GET')?.body;
const answer = (path: string, body: object) => {
  api.intercept = (request, response) => {
    if (request.path !== path) return false;
    sendJson(response, 200, body);
    return true;
  };
};

test('ls shows what is live and where', async () => {
  const { code, stdout } = await kiln(['ls']);
  assert.equal(code, 0);
  assert.match(stdout, /shop +running +http:\/\/shop\.default\.localhost:7080/);
  assert.match(stdout, /blog +pending, not live/);
  const { data } = JSON.parse((await kiln(['ls', '--json'])).stdout);
  assert.deepEqual(
    data.map((one: { slug: string }) => one.slug),
    ['shop', 'blog'],
  );
});

test('versions marks the live one, newest first', async () => {
  const { stdout } = await kiln(['versions', 'shop']);
  const rows = stdout.trim().split('\n').slice(1);
  assert.match(rows[0]!, /^\* +2 +ver_shop2 +ready +dynamic +500 ms/);
  assert.match(rows[1]!, /^ +1 +ver_shop1/);
  assert.equal(
    JSON.parse((await kiln(['versions', 'shop', '--json', '--limit', '1'])).stdout).data.length,
    1,
  );
});

test('a name that is not there ends with 2 and says which was meant, or which are there', async () => {
  const { code, stderr } = await kiln(['versions', 'elsewhere']);
  assert.equal(code, 2);
  assert.match(stderr, /no deployment called elsewhere.*\n.*shop, blog/);
  for (const typed of ['shopp', 'sho', 'shpo', 'xhop', 'sop'])
    assert.match((await kiln(['versions', typed])).stderr, /Did you mean shop\?/, typed);
  assert.match((await kiln(['promote', 'shop', '9'])).stderr, /no version 9/);
  assert.match((await kiln(['inspect', 'ver_none'])).stderr, /no version ver_none/);
});

test('rollback by number, and without one, says what else changes', async () => {
  const { code, stdout, stderr } = await kiln(['rollback', 'shop', '1']);
  assert.equal(code, 0);
  assert.match(stdout, /shop is on version 1 \(ver_shop1\)/);
  assert.match(stderr, /env TOKEN: not set → set/);
  assert.deepEqual(bodyOf('/deployments/dep_shop/rollback'), { version_id: 'ver_shop1' });
  api.seen.length = 0;
  const object = JSON.parse((await kiln(['rollback', 'shop', '--json'])).stdout);
  assert.deepEqual(bodyOf('/deployments/dep_shop/rollback'), {});
  assert.deepEqual([object.ok, object.version.id, object.changes.length], [true, 'ver_shop1', 1]);
});

test('a rollback that must start instances first is followed; when they are not healthy it ends with 4', async () => {
  Object.assign(api.versions.get('ver_shop1')!, { pending: true });
  const good = await kiln(['rollback', 'shop', '1']);
  assert.equal(good.code, 0);
  assert.match(good.stderr, /production is unchanged meanwhile/);
  assert.match(good.stdout, /shop is live/);
  api.script = failing({
    stage: 'health',
    code: 'APP_CRASHED',
    message: 'It ended.',
    next_step: 'Look at the log.',
  });
  const bad = await kiln(['rollback', 'shop', '1']);
  assert.equal(bad.code, 4);
  assert.match(bad.stderr, /Production is unchanged: http/);
});

test('promote and retry find their version', async () => {
  assert.match((await kiln(['promote', 'shop', 'ver_shop1'])).stdout, /on version 1/);
  assert.ok(api.calls().includes('POST /deployments/dep_shop/versions/ver_shop1/promote'));
  const retried = await kiln(['retry', 'ver_shop1', '--no-reuse']);
  assert.equal(retried.code, 0);
  assert.deepEqual(bodyOf('/deployments/dep_shop/versions/ver_shop1/retry'), { promote: true, reuse: false });
});

test('cancel by version and by operation', async () => {
  api.operations.set('op_ver_shop2', { id: 'op_ver_shop2', state: 'running', polls: 0, script: api.script });
  assert.match((await kiln(['cancel', 'ver_shop2'])).stdout, /Cancelled/);
  api.operations.get('op_ver_shop2')!.state = 'running';
  assert.equal((await kiln(['cancel', 'op_ver_shop2'])).code, 0);
  const wrong = await kiln(['cancel', 'shop']);
  assert.equal(wrong.code, 2);
  assert.match(wrong.stderr, /ver_… or op_…/);
});

test('logs: lines, a build by number, followed to the end, and as JSON lines', async () => {
  assert.match((await kiln(['logs', 'shop'])).stdout, /03:04:05 build \$ npm ci\n/);
  await kiln(['logs', 'shop', '--build', '1']);
  assert.ok(api.calls().includes('GET /deployments/dep_shop/builds/bld_1/logs'));
  const { code, events } = await kiln(['logs', 'shop', '-f', '--json']);
  assert.equal(code, 0);
  assert.deepEqual(
    events.map((event) => event.line),
    api.script.log,
  );
});

test('env: values from standard input are not repeated, and the name is checked', async () => {
  const set = await kiln(['env', 'set', 'shop', 'API_KEY=-', 'MODE=a=b', '--build'], { stdin: 'hunter2\n' });
  assert.equal(set.code, 0);
  assert.ok(!(set.stdout + set.stderr).includes('hunter2'));
  assert.deepEqual(bodyOf('/deployments/dep_shop/env'), {
    vars: [
      { name: 'API_KEY', value: 'hunter2', at_build: true },
      { name: 'MODE', value: 'a=b', at_build: true },
    ],
  });
  const wrong = await kiln(['env', 'set', 'shop', '1BAD=hunter2']);
  assert.equal(wrong.code, 2);
  assert.ok(!wrong.stderr.includes('hunter2'));
  assert.equal((await kiln(['env', 'unset', 'shop', 'MODE', '--environment', 'staging'])).code, 0);
  const unset = api.seen.at(-1)!;
  assert.deepEqual(
    [unset.path, unset.query.get('environment')],
    ['/deployments/dep_shop/env/MODE', 'staging'],
  );
});

test('rm needs --yes when nobody can be asked', async () => {
  const refused = await kiln(['rm', 'shop']);
  assert.equal(refused.code, 2);
  assert.match(refused.stderr, /--yes/);
  assert.ok(api.deployments.has('dep_shop'));
  assert.equal((await kiln(['rm', 'shop', '--yes'])).code, 0);
  assert.ok(!api.deployments.has('dep_shop'));
});

test('scale takes whole numbers', async () => {
  assert.match((await kiln(['scale', 'shop', '3'])).stdout, /3 instances/);
  assert.equal((await kiln(['scale', 'shop', 'many'])).code, 2);
  assert.equal((await kiln(['scale', 'shop'])).code, 2);
  const many = await kiln(['scale', 'shop', '33']);
  assert.equal(many.code, 2);
  assert.match(many.stderr, /32/);
});

test('scale of a static site says that it has no instances', async () => {
  const site = api.addDeployment('site');
  Object.assign(site, { active_version_id: api.addVersion(site.id, 1, { kind: 'static' }).id });
  assert.match((await kiln(['scale', 'site', '3'])).stdout, /static site.*no instances/);
});

test('env set warns of what Kiln sets itself', async () => {
  const { code, stderr } = await kiln(['env', 'set', 'shop', 'PORT=3000', 'A=1']);
  assert.equal(code, 0);
  assert.match(stderr, /PORT has no effect.*--port/);
  assert.doesNotMatch((await kiln(['env', 'set', 'shop', 'A=1'])).stderr, /no effect/);
});

test('what is wrong with a field is said once', async () => {
  api.intercept = ({ path }, response) => {
    if (!path.endsWith('/scale')) return false;
    const message = 'replicas: must be at most 32';
    const errors = { replicas: ['must be at most 32'] };
    sendJson(response, 422, errorBody('VALIDATION_ERROR', message, { errors }));
    return true;
  };
  const { stderr } = await kiln(['scale', 'shop', '3']);
  assert.equal(stderr.match(/must be at most 32/g)?.length, 1);
});

test('scale --size asks for more memory, alone or with a number', async () => {
  const seen: unknown[] = [];
  api.intercept = ({ path, body }, response) => {
    if (!path.endsWith('/resize')) return false;
    seen.push(body);
    sendJson(response, 200, { data: { slug: 'shop', size: 'medium', desired_replicas: 1 } });
    return true;
  };
  assert.match(
    (await kiln(['scale', 'shop', '--size', 'medium'])).stdout,
    /size medium from the next publish/,
  );
  assert.match((await kiln(['scale', 'shop', '2', '--size', 'large'])).stdout, /2 instances/);
  assert.deepEqual(seen, [{ size: 'medium' }, { size: 'large' }]);
  assert.equal((await kiln(['scale', 'shop', '--size', 'enormous'])).code, 2);
});

test('inspect shows a version with its failure, and a deployment with its live version', async () => {
  const { failure } = failing({
    stage: 'build',
    code: 'BUILD_FAILED',
    message: 'It broke.',
    next_step: 'Mend it.',
  }).end;
  api.addVersion('dep_shop', 3, { state: 'failed', failure });
  const version = await kiln(['inspect', 'ver_shop3']);
  assert.equal(version.code, 0);
  assert.match(version.stdout, /number +3/);
  assert.match(version.stderr, /BUILD_FAILED.*It broke/);
  assert.match((await kiln(['inspect', 'shop'])).stdout, /Live version\nid +ver_shop2/);
  assert.equal(JSON.parse((await kiln(['inspect', 'shop', '--json'])).stdout).active_version.id, 'ver_shop2');
});

test('open prints the URL alone', async () => {
  assert.equal((await kiln(['open', 'shop'])).stdout, 'http://shop.default.localhost:7080\n');
});

test('sandbox exec: one word is for the shell, several are a program and its arguments', async () => {
  const commands: unknown[] = [];
  api.intercept = ({ path, body }, response) => {
    if (!path.startsWith('/sandboxes/')) return false;
    if (path.endsWith('/exec')) commands.push((body as { command: string }).command);
    sendJson(response, 200, { id: 'sbx_1', name: 'one', stdout: 'out\n', stderr: '', exit_code: 7 });
    return true;
  };
  const whole = await kiln(['sandbox', 'exec', 'one', 'ls | wc -l']);
  assert.deepEqual([whole.code, whole.stdout], [3, 'out\n']);
  await kiln(['sandbox', 'exec', 'one', '--', 'sh', '-c', 'echo $HOME; exit 7']);
  assert.deepEqual(commands, ['ls | wc -l', "sh -c 'echo $HOME; exit 7'"]);
});

test('gc says what would go and why the rest stays', async () => {
  const item = (key: string, reason: string) => ({ key, kind: 'release', size_bytes: 1500, reason });
  answer('/gc', {
    data: {
      dry_run: true,
      removed: [item('releases/a', 'nothing refers to it')],
      kept: [item('releases/b', 'active')],
      removed_bytes: 1500,
    },
  });
  const { code, stdout } = await kiln(['gc', '--dry-run']);
  assert.equal(code, 0);
  assert.match(stdout, /would go +release +1\.5 kB +nothing refers to it +releases\/a/);
  assert.match(stdout, /stays +release +1\.5 kB +active/);
  assert.match(stdout, /Would remove 1 object, 1\.5 kB/);
  assert.equal(api.seen.at(-1)!.query.get('dry_run'), 'true');
});

test('doctor ends with 1 when something is not well', async () => {
  const data = {
    ok: false,
    engine_id: 'eng_1',
    node: 'v24',
    platform: 'linux-x64',
    data_dir: '/d',
    database: { kind: 'pglite', ok: false, detail: 'does not answer' },
    isolation: {
      builds: 'process',
      host: 'process',
      images: null,
      dockerfiles: null,
      drivers: [
        {
          ...{ name: 'bubblewrap', job: 'host', ok: false, in_use: false },
          ...{ detail: 'not installed', install: 'apt install bubblewrap' },
        },
      ],
    },
    base: 'b',
    disk: [{ kind: 'objects: release', bytes: 2_000_000, files: 3 }],
    disk_free_bytes: 5e9,
  };
  answer('/doctor', { data });
  const { code, stdout } = await kiln(['doctor']);
  assert.equal(code, 1);
  assert.match(stdout, /pglite: does not answer/);
  assert.match(stdout, /bubblewrap +host +no +not installed +apt install bubblewrap/);
  assert.match(stdout, /objects: release +2\.0 MB +3/);
});
