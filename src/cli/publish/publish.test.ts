import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { FakeApi, failing, type RunOptions, run, SUCCESS } from '../fixture.ts';

let api: FakeApi;
let dir: string;
let app: string;
let env: Record<string, string>;

beforeEach(async () => {
  api = new FakeApi();
  dir = mkdtempSync(path.join(os.tmpdir(), 'kiln-cli-'));
  app = path.join(dir, 'shop');
  mkdirSync(app);
  write('package.json', '{"scripts":{"start":"node server.js"}}');
  write('server.js', 'console.log(1)');
  write('.env', 'TOKEN=hunter2');
  env = { KILN_API: await api.listen(), KILN_KEY: 'msk_test', XDG_CACHE_HOME: path.join(dir, 'cache') };
});
afterEach(async () => {
  await api.close();
  rmSync(dir, { recursive: true, force: true });
});

const write = (name: string, text: string) => writeFileSync(path.join(app, name), text);
const publish = (args: string[] = [], o: RunOptions = {}) => run(['publish', app, ...args], { env, ...o });
const files = () => [...[...api.sandboxes.values()][0]!.files.keys()].sort();
const last = <T>(list: T[]): T => list.at(-1)!;

test('a folder goes live: every stage with its time, the URL, and the secrets that stayed here', async () => {
  const { code, stdout, stderr } = await publish();
  assert.equal(code, 0, stderr);
  assert.match(stdout, /shop is live: http:\/\/shop\.default\.localhost:7080/);
  for (const line of [/upload/, /snapshot +5 ms/, /build +1\.2 s/, /health +2\.0 s/, /promotion/])
    assert.match(stderr, line);
  assert.match(stderr, /left out as secrets: \.env.*!\.env.*\.kilnignore/);
  assert.deepEqual(files(), ['package.json', 'server.js']);
  const call = api.seen.find((one) => one.path.endsWith('/publish'))!;
  assert.ok(call.headers['idempotency-key']);
  assert.deepEqual([call.body.promote, call.body.reuse, 'grace_ms' in call.body], [true, true, false]);
});

test('the second time only what changed is sent, to the same sandbox and deployment', async () => {
  await publish(['--name', 'store']);
  write('server.js', 'console.log(2)');
  const before = api.seen.length;
  const { code, stderr, stdout } = await publish();
  assert.equal(code, 0);
  assert.match(stderr, /1 of 2 files/);
  assert.match(
    stdout,
    /store is live/,
    'the folder keeps its deployment although the name is not said again',
  );
  assert.equal(api.sandboxes.size, 1);
  assert.equal(api.deployments.size, 1);
  rmSync(path.join(app, 'server.js'));
  const third = await publish();
  assert.match(third.stderr, /1 file, nothing changed/);
  assert.deepEqual(files(), ['package.json']);
  assert.equal(api.seen.slice(before).filter((one) => one.method === 'PUT').length, 1);
});

test('a folder that is refused leaves no deployment behind', async () => {
  for (const name of ['package.json', 'server.js', '.env']) rmSync(path.join(app, name));
  const { code, stderr } = await publish();
  assert.equal(code, 2);
  assert.match(stderr, /nothing to publish/);
  assert.equal(api.deployments.size, 0);
});

test('a server that asks for a file that is not in the manifest does not get it', async () => {
  api.greedy = ['.env', '../../etc/passwd'];
  assert.equal((await publish()).code, 0);
  assert.deepEqual(files(), ['package.json', 'server.js']);
});

test('a name that was not typed never takes over the deployment of another folder', async () => {
  api.addDeployment('shop', { metadata: { sandbox: 'shop-of-somebody-else' } });
  const refused = await publish();
  assert.equal(refused.code, 2);
  assert.match(refused.stderr, /--name shop/);
  assert.ok(!api.calls().some((call) => call.endsWith('/publish')));
  assert.equal((await publish(['--name', 'shop'])).code, 0);
});

test('options reach the engine in its own words', async () => {
  const { code } = await publish([
    ...[
      '--build-command',
      'make',
      '--run-command',
      './server',
      '--install-command',
      'make deps',
      '--port',
      '3000',
    ],
    ...[
      '--health-check-path',
      '/healthz',
      '--output-path',
      'out',
      '--root',
      'web',
      '--kind',
      'dynamic',
      '--spa',
    ],
    ...[
      '--grace',
      '0.5',
      '--startup-limit',
      '7',
      '--env',
      'A=1',
      '--env',
      'B=x=y',
      '--no-reuse',
      '--include-git',
    ],
    ...['--replicas', '3'],
  ]);
  assert.equal(code, 0);
  const { source_sandbox_id: _, ...body } = api.seen.find((one) => one.path.endsWith('/publish'))!.body;
  assert.deepEqual(body, {
    build_command: 'make',
    run_command: './server',
    install_command: 'make deps',
    port: 3000,
    health_check_path: '/healthz',
    output_path: 'out',
    root: 'web',
    kind: 'dynamic',
    spa: true,
    grace_ms: 500,
    startup_timeout_ms: 7000,
    env: { A: '1', B: 'x=y' },
    promote: true,
    reuse: false,
    include_git: true,
  });
  assert.deepEqual(api.seen.find((one) => one.path.endsWith('/scale'))!.body, { replicas: 3 });
});

test('--json is one line per event, and the last one is the outcome', async () => {
  const { code, events, stderr, stdout } = await publish(['--json']);
  assert.equal(code, 0);
  assert.equal(stderr, '');
  assert.equal(events.length, stdout.trim().split('\n').length);
  const kinds = events.map((event) => event.event);
  assert.ok(kinds.includes('accepted') && kinds.includes('stage') && kinds.includes('log'));
  const logged = events.filter((event) => event.event === 'log').map((event) => event.line);
  assert.deepEqual(logged, SUCCESS.log);
  const done = events.filter((event) => event.event === 'stage' && event.state === 'done');
  assert.deepEqual(
    done.map(({ stage }) => stage),
    ['upload', 'snapshot', 'plan', 'build', 'release', 'health', 'promotion'],
  );
  const end = last(events);
  assert.deepEqual(
    [end.event, end.ok, end.exit_code, end.url, end.promoted, end.secrets_left_out],
    ['finished', true, 0, 'http://shop.default.localhost:7080', true, ['.env']],
  );
});

test('a failed build ends with 3, and says what happened and what to do next', async () => {
  api.script = failing({
    stage: 'build',
    code: 'BUILD_FAILED',
    message: '`npm run build` ended with exit code 2.',
    next_step: 'Fix it and publish again.',
    exit_code: 2,
    log_tail: ['\u001b[2Jerror TS1005', 'Found 1 error'],
  });
  const { code, stderr } = await publish();
  assert.equal(code, 3);
  for (const part of [/BUILD_FAILED/, /exit code 2/, /Next: Fix it/, /Found 1 error/, /Nothing is live yet/])
    assert.match(stderr, part);
  assert.ok(!stderr.includes('\u001b'), 'what the app wrote cannot steer the terminal');
});

test('an app that is not healthy ends with 4, and shows what was seen', async () => {
  api.script = failing({
    stage: 'health',
    code: 'WRONG_PORT',
    message: 'It listens on another port.',
    next_step: 'Use PORT.',
    listening: [{ address: '0.0.0.0', port: 8080 }],
    last_probe: { at: '', status: null, error: 'refused', location: null, duration_ms: 3 },
  });
  const { code, stderr } = await publish();
  assert.equal(code, 4);
  assert.match(stderr, /listens on 0\.0\.0\.0:8080/);
  assert.match(stderr, /last probe: refused after 3 ms/);
});

test('the engine’s fault is 1; cancelled and superseded are 5', async () => {
  api.script = failing({
    stage: 'release',
    code: 'STORAGE_FAILED',
    message: 'm',
    next_step: 'n',
    fault: 'engine',
    retryable: true,
  });
  const engine = await publish();
  assert.equal(engine.code, 1);
  assert.match(engine.stderr, /kiln retry ver_/);
  api.script = failing(
    { stage: 'build', code: 'CANCELLED', message: 'm', next_step: 'n', fault: 'caller' },
    'cancelled',
  );
  assert.equal((await publish()).code, 5);
  api.script = { ...SUCCESS, end: { state: 'succeeded', promoted: false, superseded: true } };
  const superseded = await publish();
  assert.equal(superseded.code, 5);
  assert.match(superseded.stdout, /kiln promote shop 3/);
});

test('--no-promote leaves production alone and says how to go on', async () => {
  const { code, stdout } = await publish(['--no-promote']);
  assert.equal(code, 0);
  assert.match(stdout, /kiln promote shop 1/);
});

test('a reused release is said', async () => {
  const { build: _, release: __, ...stage_times } = SUCCESS.version_end.stage_times as Record<string, number>;
  api.script = { ...SUCCESS, version_end: { ...SUCCESS.version_end, stage_times, reused_release: true } };
  const { stdout, stderr } = await publish();
  assert.match(stderr, /build .*nothing was built/);
  assert.match(stdout, /stored release reused/);
});

test('Ctrl-C stops the watching, not the publish', async () => {
  const interrupt = new AbortController();
  api.script = { ...SUCCESS, stages: Array.from({ length: 1000 }, () => 'build') };
  api.intercept = ({ path: at }) => {
    if (at.startsWith('/operations/')) interrupt.abort();
    return false;
  };
  const { code, stderr } = await publish([], { interrupted: interrupt.signal });
  assert.equal(code, 130);
  assert.match(stderr, /The publish goes on\. Watch it with `kiln logs shop -f`.*`kiln cancel ver_/);
  assert.ok(!api.calls().some((call) => call.endsWith('/cancel')));
});

test('Ctrl-C before the answer: what came of it is said', async () => {
  const at = async (place: RegExp) => {
    const interrupt = new AbortController();
    api.intercept = ({ path }) => {
      if (!place.test(path)) return false;
      interrupt.abort();
      return true;
    };
    const { code, stderr } = await publish([], { interrupted: interrupt.signal });
    assert.equal(code, 130);
    return stderr;
  };
  assert.match(await at(/./), /Interrupted\. Nothing was published\./);
  assert.match(await at(/\/publish$/), /accepted already: `kiln versions shop` shows it/);
});

test('an engine that goes away meanwhile is waited for', async () => {
  let drops = 7;
  api.intercept = ({ path: at }, response) => {
    if (!at.startsWith('/operations/') || drops-- <= 0) return false;
    response.destroy();
    return true;
  };
  const { code, stdout } = await publish();
  assert.equal(code, 0);
  assert.match(stdout, /shop is live/);
});

test('a log whose stream breaks goes on where it was', async () => {
  let breaks = 2;
  const frame = (line: string) => `event: log_line\ndata: ${JSON.stringify({ line, stream: 'stdout' })}\n\n`;
  api.script = { ...SUCCESS, stages: Array.from({ length: 10 }, () => 'build') };
  api.intercept = ({ path: at }, response) => {
    if (!at.includes('/logs') || breaks-- <= 0) return false;
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write(frame(SUCCESS.log[0]!), () => response.destroy());
    return true;
  };
  const { code, events } = await publish(['--json']);
  assert.equal(code, 0);
  const lines = events.filter(({ event }) => event === 'log').map(({ line }) => line);
  assert.deepEqual(lines, SUCCESS.log);
});

test('a snapshot that fails is the engine’s fault, and no version is talked about', async () => {
  api.intercept = ({ path: at }, response) => {
    if (!at.endsWith('/publish')) return false;
    const message = 'The source could not be frozen: a.txt keeps changing.';
    response.writeHead(500, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ error: { code: 'SNAPSHOT_FAILED', message, request_id: 'req_9' } }));
    return true;
  };
  const { code, stderr } = await publish();
  assert.equal(code, 1);
  assert.match(stderr, /a\.txt keeps changing/);
  assert.match(stderr, /SNAPSHOT_FAILED, req_9/);
});

test('a file that cannot be sent ends with 2, and says how to leave it out', async () => {
  writeFileSync(Buffer.concat([Buffer.from(`${app}/bad`), Buffer.from([0xff])]), '');
  const { code, stderr } = await publish();
  assert.equal(code, 2);
  assert.match(stderr, /bad.* not valid UTF-8.*\n.*\.kilnignore/);
  assert.ok(!api.calls().some((call) => call.endsWith('/publish')));
});

test('bad paths end with 2 before anything is sent', async () => {
  mkdirSync(path.join(dir, 'empty'));
  assert.equal((await run(['publish', path.join(dir, 'nothing')], { env })).code, 2);
  assert.match((await run(['publish', path.join(app, 'server.js')], { env })).stderr, /is a file/);
  const empty = await run(['publish', path.join(dir, 'empty')], { env });
  assert.equal(empty.code, 2);
  assert.match(empty.stderr, /nothing to publish/);
  assert.ok(!api.calls().some((call) => call.endsWith('/publish')));
});

test('a variable of one version can come from standard input', async () => {
  const { code, stdout, stderr } = await publish(['--env', 'MODE=a=b', '--env', 'TOKEN=-'], {
    stdin: 'hunter2\n',
  });
  assert.equal(code, 0, stderr);
  const { body } = api.seen.find((one) => one.path.endsWith('/publish'))!;
  assert.deepEqual(body.env, { MODE: 'a=b', TOKEN: 'hunter2' });
  assert.ok(!(stdout + stderr).includes('hunter2'));
  const twice = await publish(['--env', 'A=-', '--env', 'B=-'], { stdin: 'x' });
  assert.equal(twice.code, 2);
  assert.match(twice.stderr, /Only one value/);
});

test('what the plan and the engine warn of is said at the end, beside the outcome', async () => {
  api.script = {
    ...SUCCESS,
    log: ['warning: unused variable'],
    // Twice: the engine died in between, and another took the publish up.
    notes: ['warning: out has no index.html.', 'release rel_1', 'warning: out has no index.html.'],
    version_end: { ...SUCCESS.version_end, plan: { warnings: ['No lockfile.'] } },
  };
  const { code, stderr } = await publish();
  assert.equal(code, 0);
  assert.match(stderr, /warning: No lockfile\.\nwarning: out has no index\.html\./);
  assert.doesNotMatch(stderr, /unused variable/);
  const json = await publish(['--json']);
  assert.deepEqual(last(json.events).warnings, ['No lockfile.', 'out has no index.html.']);
});
