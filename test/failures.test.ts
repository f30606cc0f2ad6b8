/** Every row of the failure table, seen from outside while a visitor hammers the live version (I3). */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { nodeServer, staticSite, writeApp } from './support/apps.ts';
import type { Json } from './support/client.ts';
import { type Hammer, hammer } from './support/hammer.ts';
import { type Kiln, startKiln } from './support/kiln.ts';

describe('failures leave production alone', () => {
  let kiln: Kiln;
  let live: Json;
  let visitor: Hammer;
  before(async () => {
    kiln = await startKiln({ 'artifact-limit': '4', 'startup-limit': '3', 'build-time-limit': '6' });
    live = (await kiln.publish(await nodeServer('production'), { name: 'prod' })).deployment;
    visitor = hammer(kiln, live);
  });
  after(async () => {
    await visitor.stop();
    await kiln.close();
  });

  /** Publishes what must fail, and checks everything that must not have changed. */
  async function fails(dir: string, code: string, options: Record<string, unknown> = {}): Promise<Json> {
    const before = await kiln.ask('GET', `/deployments/${live.id}`);
    const { version, deployment } = await kiln.publish(dir, { deployment_id: live.id, ...options });
    assert.equal(version.state, 'failed');
    assert.equal(version.failure.code, code, JSON.stringify(version.failure, null, 1));
    assert.ok(version.failure.next_step.length > 20);
    assert.equal(deployment.active_version_id, before.active_version_id);
    const instances = await kiln.ask('GET', `/deployments/${live.id}/runtime-instances`);
    const of_it = instances.filter(
      (i: Json) => i.release_id === version.release_id && version.release_id !== null,
    );
    assert.ok(
      of_it.every((i: Json) => ['stopped', 'destroyed'].includes(i.state)),
      'its instances are torn down',
    );
    assert.deepEqual(visitor.failures, []);
    assert.deepEqual(visitor.bodies, ['production']);
    const promote = await kiln.call('POST', `/deployments/${live.id}/versions/${version.id}/promote`, {});
    assert.equal(promote.status, 409);
    assert.equal(promote.json.error.code, 'VERSION_NOT_READY');
    return version;
  }

  test('the build command exits non-zero', async () => {
    const version = await fails(await staticSite('x'), 'BUILD_FAILED', {
      build_command: 'echo about to fail; exit 7',
      output_path: '.',
    });
    assert.equal(version.failure.exit_code, 7);
    assert.match(await kiln.buildLog(live.id, version.build_id), /about to fail/);
    const build = await kiln.ask('GET', `/deployments/${live.id}/builds/${version.build_id}`);
    assert.equal(build.state, 'failed');
  });

  test('the build prints what no database takes (NUL, half a character)', async () => {
    const noise =
      "printf 'a\\0b\\n'; node -e 'process.stdout.write(Buffer.from([0xed, 0xa0, 0xbd, 10]))'; exit 5";
    const version = await fails(await staticSite('x'), 'BUILD_FAILED', {
      build_command: noise,
      output_path: '.',
    });
    assert.ok(version.failure.log_tail.some((line: string) => line.startsWith('a') && line.endsWith('b')));
  });

  test('the app prints what no database takes, and crashes', async () => {
    const noise = "console.error('x\\u0000y'); process.exit(6);";
    await fails(await nodeServer('x', '', noise), 'APP_CRASHED');
  });

  test('the build never ends', async () => {
    await fails(await staticSite('x'), 'BUILD_TIMEOUT', {
      build_command: 'sleep 60',
      output_path: '.',
    });
  });

  test('a tool is missing', async () => {
    await fails(await staticSite('x'), 'TOOLCHAIN_MISSING', {
      build_command: 'no-such-tool --x',
      output_path: '.',
    });
  });

  test('the app crashes at once', async () => {
    const version = await fails(
      await nodeServer('x', '', "console.error('no database'); process.exit(4);"),
      'APP_CRASHED',
    );
    assert.equal(version.failure.exit_code, 4);
    assert.ok(version.failure.log_tail.some((line: string) => line.includes('no database')));
  });

  test('the health path answers 404', async () => {
    const version = await fails(
      await nodeServer('x', "if (req.url === '/healthz') res.statusCode = 404;"),
      'HEALTH_STATUS',
      {
        health_check_path: '/healthz',
      },
    );
    assert.equal(version.failure.last_probe.status, 404);
  });

  test('the app never listens', async () => {
    await fails(await writeApp({ 'main.js': 'setInterval(() => {}, 1000)' }), 'NEVER_LISTENED', {
      run_command: 'node main.js',
    });
  });

  test('the app listens on a port of its own', async () => {
    const server = `require('http').createServer((q, s) => s.end('x')).listen(0, () => {})`;
    const version = await fails(await writeApp({ 'main.js': server }), 'WRONG_PORT', {
      run_command: 'node main.js',
    });
    assert.equal(version.failure.listening.length, 1);
  });

  test('another program took the port meanwhile, and answers well', async (t) => {
    // The app tells this server its port, which is then listened on here; the app itself never does.
    const server = http.createServer((req, res) => {
      const port = new URL(req.url!, 'http://x').searchParams.get('port');
      if (port === null) return res.end('not the app');
      const thief = http.createServer((_, answer) => answer.end('not the app')).listen(Number(port));
      t.after(() => thief.close());
      return thief.once('listening', () => res.end());
    });
    await once(server.listen(0, '127.0.0.1'), 'listening');
    t.after(() => server.close());
    const tell = `fetch('http://127.0.0.1:${(server.address() as AddressInfo).port}/?port=' + process.env.PORT)`;
    const dir = await writeApp({ 'main.js': `${tell}; setInterval(() => {}, 1000)` });
    const version = await fails(dir, 'NEVER_LISTENED', { run_command: 'node main.js' });
    assert.match(version.failure.message, /held by a program that does not belong to the app/);
  });

  test('healthy, then not: the grace period notices', async () => {
    const flaky = `const since = Date.now(); require('http').createServer((q, s) => { s.statusCode = Date.now() - since > 700 ? 500 : 200; s.end(); }).listen(process.env.PORT)`;
    await fails(await writeApp({ 'main.js': flaky }), 'HEALTH_UNSTABLE', {
      run_command: 'node main.js',
      grace_ms: 3000,
    });
  });

  test('an app that redirects to an address with a secret in it: the failure does not name it (I10)', async () => {
    const { id } = await kiln.deployment('tells');
    const secret = 'hush-91f3c7';

    await kiln.ask('POST', `/deployments/${id}/env`, { env: { ACCESS_TOKEN: secret } });
    const dir = await writeApp({
      'main.js': `require('http').createServer((q, s) => { s.writeHead(302, { location: '/?token=' + process.env.ACCESS_TOKEN }); s.end(); }).listen(process.env.PORT)`,
    });
    const { version } = await kiln.publish(dir, { deployment_id: id, run_command: 'node main.js' });
    assert.equal(version.failure.code, 'HEALTH_REDIRECT', JSON.stringify(version.failure));
    assert.match(version.failure.last_probe.location, /\?token=\[redacted\]/);
    assert.ok(!JSON.stringify(await kiln.version(id, version.id)).includes(secret));
    assert.ok(!(await kiln.buildLog(id, version.build_id)).includes(secret));
  });

  test('the artifact is over the limit', async () => {
    await fails(await staticSite('big'), 'ARTIFACT_TOO_LARGE', {
      build_command: 'mkdir out && head -c 6000000 /dev/zero > out/index.html',
      output_path: 'out',
    });
  });

  test('the output folder is missing', async () => {
    await fails(await staticSite('x'), 'OUTPUT_MISSING', { build_command: 'true', output_path: 'nowhere' });
  });

  test('nothing says how to build it', async () => {
    const version = await fails(await writeApp({ 'notes.xyz': 'hello' }), 'NO_PLAN');
    assert.ok(version.failure.log_tail.join().includes('looked for'));
  });

  test('a version of the language that cannot be had: nothing is built with another one', async () => {
    const dir = await writeApp({ '.python-version': '2.7\n', 'main.py': 'print("never run")\n' });
    const version = await fails(dir, 'TOOLCHAIN_MISSING');
    assert.match(version.failure.message, /\.python-version (?:asks for|needs) python3 2\.7/);
    assert.doesNotMatch(await kiln.buildLog(live.id, version.build_id), /never run/);
  });

  test('a Dockerfile without BuildKit', async () => {
    const version = await fails(await writeApp({ Dockerfile: 'FROM scratch\n' }), 'BUILDKIT_MISSING');
    assert.match(version.failure.message, /BuildKit/);
  });

  test('an empty or oversized source: an error at once, no version row (I7)', async () => {
    const { id } = await kiln.ask('POST', '/sandboxes', {});
    await kiln.ask('DELETE', `/sandboxes/${id}`);
    const before = await kiln.ask('GET', `/deployments/${live.id}/versions?limit=200`);
    const { status } = await kiln.call('POST', `/deployments/${live.id}/publish`, { source_sandbox_id: id });
    assert.ok(status >= 400 && status < 500, String(status));
    const after = await kiln.ask('GET', `/deployments/${live.id}/versions?limit=200`);
    assert.equal(after.length, before.length);
    assert.deepEqual(visitor.failures, []);
  });
});
