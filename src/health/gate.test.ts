import assert from 'node:assert/strict';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import type { MachineExit } from '../isolation/driver.ts';
import { type GateOptions, type GateProgress, type GateReplica, gate } from './gate.ts';

/** An app of the test: a real server whose answer can change at any time. */
async function app(t: TestContext, status: number | (() => number | null)) {
  const server = http.createServer((_req, res) => {
    const code = typeof status === 'number' ? status : status();
    if (code !== null) res.writeHead(code).end();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return replica((server.address() as AddressInfo).port);
}

function replica(port: number, of: Partial<GateReplica> = {}): GateReplica {
  return {
    id: `ins_${port}`,
    host: '127.0.0.1',
    port,
    exited: new Promise(() => {}),
    listening: async () => [{ address: '127.0.0.1', port }],
    log_tail: () => ['hello'],
    memory_limit_bytes: 512 * 1024 ** 2,
    ...of,
  };
}

function options(replicas: GateReplica[], of: Partial<GateOptions> = {}): GateOptions {
  return {
    replicas,
    path: '/',
    startup_timeout_ms: 2000,
    grace_ms: 0,
    probe_interval_ms: 20,
    probe_timeout_ms: 500,
    signal: new AbortController().signal,
    ...of,
  };
}

const crash: MachineExit = {
  reason: 'exited',
  exit_code: 3,
  signal: null,
  peak_memory_bytes: 1,
  peak_processes: 1,
  duration_ms: 1,
};

async function failureOf(run: GateOptions) {
  const result = await gate(run);
  assert.equal(result.ok, false);
  return (result as { ok: false; failure: import('../domain/failure.ts').Failure }).failure;
}

test('passes after the first 2xx when no grace is asked for', async (t) => {
  let probes = 0;
  const slow = await app(t, () => (++probes < 4 ? 503 : 200));
  const result = await gate(options([slow]));
  assert.equal(result.ok, true);
  assert.equal(probes, 4);
});

test('an answer of a program that is not the app is none', async (t) => {
  const other = await app(t, 200);
  let own: boolean | null = false;
  const stolen = { ...other, listening: async () => [], answersItself: async () => own };
  const failure = await failureOf(options([stolen], { startup_timeout_ms: 200 }));
  assert.equal(failure.code, 'NEVER_LISTENED');
  assert.match(failure.message, /held by a program that does not belong to the app/);
  assert.equal(failure.last_probe?.error, 'answered by another program');
  for (own of [true, null]) assert.equal((await gate(options([stolen]))).ok, true, `${own}`);
});

test('holds the whole grace period, and tells how it goes', async (t) => {
  const seen: GateProgress[] = [];
  const started = performance.now();
  const replicas = [await app(t, 200), await app(t, 204)];
  const result = await gate(options(replicas, { grace_ms: 150, on_progress: (p) => seen.push(p) }));
  assert.equal(result.ok, true);
  assert.ok(performance.now() - started >= 150);
  assert.equal(seen[0]!.phase, 'starting');
  assert.equal(seen.at(-1)!.phase, 'grace');
  assert.ok(seen.at(-1)!.elapsed_ms >= 150);
  assert.ok(seen.length >= 4);
  assert.deepEqual([seen.at(-1)!.healthy, seen.at(-1)!.total], [2, 2]);
});

test('one bad answer in the grace period is the end, also of one replica among several', async (t) => {
  let probes = 0;
  const flaky = await app(t, () => (++probes === 3 ? 500 : 200));
  const failure = await failureOf(options([await app(t, 200), flaky], { grace_ms: 5000 }));
  assert.equal(failure.code, 'HEALTH_UNSTABLE');
  assert.equal(failure.last_probe?.status, 500);
  assert.equal(probes, 3);
});

test('a probe that times out breaks the grace period', async (t) => {
  let probes = 0;
  const hangs = await app(t, () => (++probes === 2 ? null : 200));
  const failure = await failureOf(options([hangs], { grace_ms: 5000, probe_timeout_ms: 60 }));
  assert.equal(failure.code, 'HEALTH_UNSTABLE');
  assert.equal(failure.last_probe?.error, 'timed out');
});

test('the start-up limit ends it, with the last answer and the reason', async (t) => {
  const missing = await failureOf(options([await app(t, 404)], { startup_timeout_ms: 120 }));
  assert.equal(missing.code, 'HEALTH_STATUS');
  assert.equal(missing.last_probe?.status, 404);
  assert.deepEqual(missing.log_tail, ['hello']);

  const silent = await failureOf(
    options([await app(t, () => null)], { startup_timeout_ms: 100, probe_timeout_ms: 5000 }),
  );
  assert.equal(silent.code, 'HEALTH_TIMEOUT');

  const other = replica(1, { listening: async () => [{ address: '::', port: 3000 }] });
  assert.equal((await failureOf(options([other], { startup_timeout_ms: 60 }))).code, 'WRONG_PORT');

  const mute = replica(1, { listening: () => Promise.reject(new Error('no /proc')) });
  assert.equal((await failureOf(options([mute], { startup_timeout_ms: 60 }))).code, 'NEVER_LISTENED');
});

test('the silence that is told is the longest one, not what the deadline left of the last probe', async (t) => {
  const mute = await app(t, () => null);
  const probe_timeout_ms = 300;
  const failure = await failureOf(options([mute], { startup_timeout_ms: 1200, probe_timeout_ms }));
  assert.equal(failure.code, 'HEALTH_TIMEOUT');
  assert.ok(failure.last_probe!.duration_ms >= probe_timeout_ms, `${failure.last_probe?.duration_ms} ms`);
});

test('an exit ends it at once, before, during and after the first 2xx', async (t) => {
  const dead = replica(1, { exited: Promise.resolve(crash) });
  const before = await failureOf(options([dead], { startup_timeout_ms: 60_000 }));
  assert.equal(before.code, 'APP_CRASHED');
  assert.equal(before.exit_code, 3);

  let die: (exit: MachineExit) => void = () => {};
  const exited = new Promise<MachineExit>((resolve) => {
    die = resolve;
  });
  let probes = 0;
  const dying = await app(t, () => {
    if (++probes === 3) die(crash);
    return 200;
  });
  const run = options([await app(t, 200), { ...dying, exited }], { grace_ms: 60_000 });
  const during = await failureOf(run);
  assert.equal(during.code, 'APP_CRASHED');
  assert.match(during.message, /during the grace period/);
});

test('a connection that breaks in the grace period waits for the exit that explains it', async (t) => {
  let die: (exit: MachineExit) => void = () => {};
  const exited = new Promise<MachineExit>((resolve) => {
    die = resolve;
  });
  let probes = 0;
  const server = http.createServer((_req, res) => {
    if (++probes < 3) return void res.end();
    res.destroy();
    setTimeout(() => die({ ...crash, reason: 'out_of_memory', exit_code: null, signal: 'SIGKILL' }), 200);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  const dying = replica((server.address() as AddressInfo).port, { exited });
  const failure = await failureOf(options([dying], { grace_ms: 60_000 }));
  assert.equal(failure.code, 'APP_OUT_OF_MEMORY');
  assert.equal(failure.out_of_memory, true);
});

test('an exit while a probe hangs is not waited for', async (t) => {
  let die: (exit: MachineExit) => void = () => {};
  const exited = new Promise<MachineExit>((resolve) => {
    die = resolve;
  });
  const hangs = await app(t, () => {
    die({ ...crash, exit_code: null, signal: 'SIGKILL' });
    return null;
  });
  const started = performance.now();
  const failure = await failureOf(options([{ ...hangs, exited }], { probe_timeout_ms: 30_000 }));
  assert.equal(failure.signal, 'SIGKILL');
  assert.ok(performance.now() - started < 2000);
});

test('aborting rejects with the reason, while starting and in the grace period', async (t) => {
  const early = new AbortController();
  const starting = gate(options([replica(1)], { signal: early.signal, probe_interval_ms: 60_000 }));
  early.abort(new Error('cancelled'));
  await assert.rejects(starting, /cancelled/);

  const later = new AbortController();
  const run = gate(
    options([await app(t, 200)], {
      signal: later.signal,
      grace_ms: 60_000,
      probe_interval_ms: 60_000,
      on_progress: () => later.abort(new Error('stop it')),
    }),
  );
  await assert.rejects(run, /stop it/);
});

test('an app that refuses at one address is followed to the one it listens on', async (t) => {
  const { port } = await app(t, 200);
  let asked = 0;
  const moving = replica(port, {
    host: '127.0.0.2',
    refused: async () => {
      asked++;
      moving.host = '127.0.0.1';
    },
  });
  const result = await gate(options([moving]));
  assert.equal(result.ok, true);
  assert.equal(asked, 1);
});
