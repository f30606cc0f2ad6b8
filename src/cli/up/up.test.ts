import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import type { Config } from '../../config.ts';
import type { StartServer } from '../cli.ts';
import { FakeApi, failing, type RunOptions, run } from '../fixture.ts';

let api: FakeApi;
let dir: string;
let started: Config[];
let closed: number;
let interrupt: AbortController;
const busy: net.Server[] = [];

beforeEach(async () => {
  api = new FakeApi();
  dir = mkdtempSync(path.join(os.tmpdir(), 'kiln-up-'));
  started = [];
  closed = 0;
  interrupt = new AbortController();
});
afterEach(async () => {
  for (const server of busy.splice(0)) server.close();
  await api.close();
  rmSync(dir, { recursive: true });
});

/** An engine that is the fake API. */
const startServer: StartServer = async (config, hooks) => {
  started.push(config);
  hooks.say?.('info', 'not shown');
  hooks.say?.('warn', 'shown', { why: 'a test' });
  const end = Promise.withResolvers<void>();
  return {
    api_url: await api.listen(),
    edge_url: 'http://localhost:1',
    key: 'msk_test',
    isolation: 'process',
    warnings: ['It isolates nothing.'],
    closed: end.promise,
    close: async () => {
      closed++;
      end.resolve();
    },
  };
};

async function takenPort(): Promise<number> {
  const server = net.createServer();
  busy.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as net.AddressInfo).port;
}

const anyPort = ['--api-port', '0', '--edge-port', '0'];
const kiln = (argv: string[], o: RunOptions = {}) =>
  run([...argv, '--data', dir], {
    env: { XDG_CACHE_HOME: path.join(dir, 'cache') },
    startServer,
    interrupted: interrupt.signal,
    ...o,
  });
/** Ctrl-C as soon as this is written. */
const stopAt = (text: string) => (written: string) => {
  if (written.includes(text)) setImmediate(() => interrupt.abort());
};

test('up says where it is, warns, and stops cleanly on the first signal', async () => {
  const { code, stdout, stderr } = await kiln(['up', ...anyPort, '--grace', '3'], {
    on_write: stopAt('Ready.'),
  });
  assert.equal(code, 0);
  assert.match(stdout, /API +http:\/\/127\.0\.0\.1:\d+\nEdge +http:\/\/localhost:1\nIsolation +process/);
  assert.match(stderr, /It isolates nothing/);
  assert.match(stderr, /warn: shown \{"why":"a test"\}/);
  assert.doesNotMatch(stderr, /not shown/);
  assert.equal(closed, 1);
  const config = started[0]!;
  assert.equal(config.health.grace_ms, 3000);
  assert.ok(
    config.api.port > 0 && config.edge.port > 0,
    'port 0 became a real port, which the lock can name',
  );
});

test('up --json says ready as an event', async () => {
  const { events } = await kiln(['up', ...anyPort, '--json'], { on_write: stopAt('"ready"') });
  const ready = events.find((event) => event.event === 'ready')!;
  assert.deepEqual([ready.isolation, ready.edge_url], ['process', 'http://localhost:1']);
});

test('a taken port, a wrong option and a held folder end with 2, before anything starts', async () => {
  const port = await takenPort();
  const taken = await kiln(['up', '--api-port', String(port), '--edge-port', '0']);
  assert.equal(taken.code, 2);
  assert.match(taken.stderr, new RegExp(`Port ${port} .*taken[^]*--api-port`));
  const wrong = await kiln(['up', '--grace', 'soon']);
  assert.equal(wrong.code, 2);
  assert.match(wrong.stderr, /--grace must be a number/);
  const holder = { pid: process.pid, host: os.hostname(), started: null, api: 'http://127.0.0.1:7070' };
  writeFileSync(path.join(dir, 'kiln.lock'), JSON.stringify(holder));
  const held = await kiln(['up', ...anyPort]);
  assert.equal(held.code, 2);
  assert.match(held.stderr, new RegExp(`process id ${process.pid}`));
  assert.deepEqual(started, []);
});

test('start publishes the example with a short grace and keeps serving', async () => {
  const { code, stdout } = await kiln(['start', ...anyPort], { on_write: stopAt('Serving.') });
  assert.equal(code, 0);
  assert.match(stdout, /hello is live: http:\/\/hello\.default/);
  assert.equal(api.seen.find((one) => one.path.endsWith('/publish'))!.body.grace_ms, 2000);
  assert.equal(closed >= 1, true);
});

test('start takes another port when a usual one is taken, unless it was asked for', async () => {
  const port = await takenPort();
  const asked = await kiln(['start', '--api-port', String(port), '--edge-port', '0']);
  assert.equal(asked.code, 2);
  const env = { KILN_API_PORT: String(port), KILN_EDGE_PORT: '0' };
  assert.equal((await kiln(['start'], { env })).code, 2);
  assert.deepEqual(started, []);
});

test('a failed first publish ends the engine, with the exit code of the failure', async () => {
  api.script = failing({ stage: 'build', code: 'BUILD_FAILED', message: 'm', next_step: 'n' });
  assert.equal((await kiln(['start', ...anyPort])).code, 3);
  assert.equal(closed, 1);
});

test('a failed publish does not take down what is live', async () => {
  api.addDeployment('hello', { active_version_id: 'ver_hello1' });
  api.script = failing({ stage: 'build', code: 'BUILD_FAILED', message: 'm', next_step: 'n' });
  const { code, stdout } = await kiln(['start', ...anyPort], { on_write: stopAt('Serving.') });
  assert.equal(code, 0);
  assert.match(stdout, /Serving/);
});

test('start publishes to the engine that holds the folder, and ends', async () => {
  const holder = { pid: process.pid, host: os.hostname(), started: null, api: await api.listen() };
  writeFileSync(path.join(dir, 'kiln.lock'), JSON.stringify(holder));
  writeFileSync(path.join(dir, 'api.key'), 'msk_test');
  const { code, stdout, stderr } = await kiln(['start', '--grace', '1']);
  assert.equal(code, 0);
  assert.match(stderr, /runs already/);
  assert.match(stdout, /hello is live/);
  assert.equal(api.seen.find((one) => one.path.endsWith('/publish'))!.body.grace_ms, 1000);
  assert.deepEqual(started, []);
});
