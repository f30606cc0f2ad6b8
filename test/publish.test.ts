/** A folder goes in, a live URL comes out: the main job from outside, over HTTP, on the embedded drivers. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { nodeServer, staticSite, writeApp } from './support/apps.ts';
import { type Kiln, startKiln } from './support/kiln.ts';

describe('publish', () => {
  let kiln: Kiln;
  before(async () => {
    kiln = await startKiln({ 'artifact-limit': '8' });
  });
  after(() => kiln.close());

  test('a static folder', async () => {
    const { deployment, version, status } = await kiln.publish(await staticSite('one'), { name: 'site' });
    assert.equal(status, 200);
    assert.equal(version.state, 'ready');
    assert.equal(version.kind, 'static');
    assert.equal(deployment.active_version_id, version.id);
    assert.deepEqual(version.artifact_manifest.files, 2);
    assert.equal(version.runtime_port, null);
    const page = await kiln.get(deployment);
    assert.equal(page.status, 200);
    assert.match(page.body, /one/);
    assert.match(page.headers['content-type']!, /^text\/html/);
    const again = await kiln.get(deployment, '/', { headers: { 'if-none-match': page.headers.etag! } });
    assert.equal(again.status, 304);
    assert.equal((await kiln.get(deployment, '/assets/missing.js')).status, 404);
  });

  test('a server: detected, started, proved, live', async () => {
    const { deployment, version } = await kiln.publish(await nodeServer('hello'), { name: 'server' });
    assert.equal(version.state, 'ready', JSON.stringify(version.failure));
    assert.equal(version.kind, 'dynamic');
    assert.equal((await kiln.get(deployment)).body, 'hello');
    const instances = await kiln.ask('GET', `/deployments/${deployment.id}/runtime-instances`);
    assert.equal(instances.filter((i: { state: string }) => i.state === 'healthy').length, 1);
    const logs = await kiln.ask(
      'GET',
      `/deployments/${deployment.id}/runtime-instances/${instances[0].id}/logs`,
    );
    assert.match(logs.logs, /listening on/);
  });

  test('explicit commands: they run, then output_path is packed', async () => {
    const dir = await writeApp({ 'a.txt': 'from the source' });
    const built = await kiln.publish(dir, {
      build_command: 'mkdir -p out/deep && cp a.txt out/index.html && echo deep > out/deep/x.txt',
      output_path: 'out',
    });
    assert.equal(built.version.state, 'ready', JSON.stringify(built.version.failure));
    assert.equal(built.version.kind, 'static');
    assert.equal((await kiln.get(built.deployment)).body, 'from the source');
    assert.equal((await kiln.get(built.deployment, '/a.txt')).status, 404, 'only the output is served');

    const server = `require('http').createServer((q, s) => s.end('explicit ' + process.env.GREETING)).listen(process.env.PORT)`;
    const run = await kiln.publish(await writeApp({ 'main.js': server }), {
      run_command: 'node main.js',
      env: { GREETING: 'hi' },
    });
    assert.equal(run.version.state, 'ready', JSON.stringify(run.version.failure));
    assert.equal((await kiln.get(run.deployment)).body, 'explicit hi');
  });

  test('the same source again is not built again, runtime env is part of the version only', async () => {
    const dir = await nodeServer('x', "res.end(process.env.COLOR ?? 'none'); return;");
    const first = await kiln.publish(dir);
    const id = first.deployment.id;
    await kiln.ask('POST', `/deployments/${id}/env`, { env: { COLOR: 'green' } });
    const second = await kiln.publish(dir, { deployment_id: id });
    assert.equal(second.version.reused_release, true);
    assert.equal(second.version.artifact_sha256, first.version.artifact_sha256);
    assert.match(await kiln.buildLog(id, second.version.build_id), /reused release/);
    assert.equal((await kiln.get(second.deployment)).body, 'green');
    const third = await kiln.publish(dir, { deployment_id: id, reuse: false });
    assert.equal(third.version.reused_release, false);
    assert.equal(
      third.version.artifact_sha256,
      first.version.artifact_sha256,
      'same source, plan, base: same digest (I11)',
    );
  });

  test('the workspace may change during the publish; what was frozen is what is served', async () => {
    const dir = await nodeServer('frozen');
    const sandbox_id = await kiln.sandboxFrom(dir);
    const pending = await kiln.publish(null, { sandbox_id, wait: 0 });
    assert.equal(pending.status, 202);
    await writeFile(path.join(dir, 'server.js'), 'process.exit(1)');
    await kiln.fill(sandbox_id, dir);
    const version = await kiln.settled(pending.deployment.id, pending.version.id);
    assert.equal(version.state, 'ready', JSON.stringify(version.failure));
    assert.equal((await kiln.get(pending.deployment)).body, 'frozen');
  });

  test('secrets: not in the snapshot, not in a log, not in an answer', async () => {
    const secret = 'hunter2-sesame-open';
    const dir = await nodeServer('x', '', 'console.log("key is " + process.env.API_KEY);');
    await writeFile(path.join(dir, '.env'), `API_KEY=${secret}\n`);
    const deployment = await kiln.deployment('secrets');
    await kiln.ask('POST', `/deployments/${deployment.id}/env`, {
      vars: [{ name: 'API_KEY', value: secret, is_secret: true, at_build: true }],
    });
    const { version } = await kiln.publish(dir, {
      deployment_id: deployment.id,
      build_command: 'echo "the key: $API_KEY" && ls -a && ! test -e .env',
      run_command: 'node server.js',
    });
    assert.equal(version.state, 'ready', JSON.stringify(version.failure));
    assert.deepEqual(version.secrets_left_out ?? ['.env'], ['.env']);
    const log = await kiln.buildLog(deployment.id, version.build_id);
    assert.match(log, /the key: \[redacted\]/);
    const [instance] = await kiln.ask('GET', `/deployments/${deployment.id}/runtime-instances`);
    const { logs } = await kiln.ask(
      'GET',
      `/deployments/${deployment.id}/runtime-instances/${instance.id}/logs`,
    );
    assert.match(logs, /key is \[redacted\]/);
    const answers = [log, logs];
    for (const part of ['', '/versions', '/env', '/releases', '/builds'])
      answers.push(JSON.stringify(await kiln.ask('GET', `/deployments/${deployment.id}${part}`)));
    for (const answer of answers) assert.ok(!answer.includes(secret), answer);
  });

  test('promote: false publishes without switching; promote switches later', async () => {
    const one = await kiln.publish(await nodeServer('one'));
    const id = one.deployment.id;
    const two = await kiln.publish(await nodeServer('two'), { deployment_id: id, promote: false });
    assert.equal(two.version.state, 'ready');
    assert.equal((await kiln.get(one.deployment)).body, 'one');
    const deployment = await kiln.ask('POST', `/deployments/${id}/versions/${two.version.id}/promote`, {});
    assert.equal(deployment.active_version_id, two.version.id);
    assert.equal((await kiln.get(one.deployment)).body, 'two');
  });

  test('env, files and exec of a sandbox', async () => {
    const { id } = await kiln.ask('POST', '/sandboxes', { name: 'box' });
    const content = Buffer.from('console.log(6 * 7)').toString('base64');
    await kiln.ask('POST', `/sandboxes/${id}/files`, { path: '/workspace/a/b.js', content });
    const run = await kiln.ask('POST', `/sandboxes/${id}/exec`, {
      command: 'node a/b.js; echo oops >&2; exit 3',
    });
    assert.equal(run.stdout.trim(), '42');
    assert.equal(run.stderr.trim(), 'oops');
    assert.equal(run.exit_code, 3);
    const refused = await kiln.call('POST', `/sandboxes/${id}/files`, { path: '../../x', content });
    assert.equal(refused.status, 403);
  });

  test('replicas: scaled up and down, all of them serve', async () => {
    const { deployment } = await kiln.publish(await nodeServer('x', 'res.end(process.env.PORT); return;'));
    await kiln.ask('POST', `/deployments/${deployment.id}/scale`, { instances: 3 });
    const ports = new Set<string>();
    for (let tries = 0; tries < 200 && ports.size < 3; tries++) {
      ports.add((await kiln.get(deployment)).body);
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
    assert.equal(ports.size, 3);
  });
});
