import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ProbeAnswer } from '../domain/failure.ts';
import type { MachineExit } from '../isolation/driver.ts';
import { diagnose, type Observation } from './diagnose.ts';

const MIB = 1024 ** 2;

function seen(of: Partial<Observation>): Observation {
  return {
    host: '127.0.0.1',
    port: 4000,
    path: '/healthz',
    phase: 'starting',
    startup_timeout_ms: 60_000,
    grace_ms: 30_000,
    memory_limit_bytes: 512 * MIB,
    last_probe: answer({ error: 'refused' }),
    exit: null,
    listening: [],
    log_tail: [],
    ...of,
  };
}

function answer(of: Partial<ProbeAnswer>): ProbeAnswer {
  return { at: '2025-01-01T00:00:00.000Z', status: null, error: null, location: null, duration_ms: 5, ...of };
}

function exit(of: Partial<MachineExit>): MachineExit {
  return {
    reason: 'exited',
    exit_code: null,
    signal: null,
    peak_memory_bytes: 40 * MIB,
    peak_processes: 1,
    duration_ms: 100,
    ...of,
  };
}

test('nothing listens', () => {
  const failure = diagnose(seen({}));
  assert.equal(failure.code, 'NEVER_LISTENED');
  assert.equal(failure.stage, 'health');
  assert.equal(failure.retryable, false);
  assert.equal(failure.message, 'The app did not listen on any port within 60 s.');
  assert.match(failure.next_step, /listens on PORT.*--startup-limit/);
});

test('listens elsewhere: the port is named in message and next step', () => {
  const failure = diagnose(seen({ listening: [{ address: '0.0.0.0', port: 3000 }] }));
  assert.equal(failure.code, 'WRONG_PORT');
  assert.equal(failure.message, 'The app listens on port 3000, not on 4000, which it was given in PORT.');
  assert.match(failure.next_step, /PORT environment variable.*--port 3000/);
});

test('right port on an address that cannot be reached', () => {
  const failure = diagnose(
    seen({
      host: '10.0.0.7',
      listening: [
        { address: '127.0.0.1', port: 4000 },
        { address: '0.0.0.0', port: 9229 },
      ],
    }),
  );
  assert.equal(failure.code, 'WRONG_ADDRESS');
  assert.match(failure.message, /only on 127\.0\.0\.1, which cannot be reached from 10\.0\.0\.7/);
  assert.match(failure.next_step, /0\.0\.0\.0/);
});

test('answers by status, each with its own next step', () => {
  const next = (status: number): string => {
    const failure = diagnose(seen({ last_probe: answer({ status }) }));
    assert.equal(failure.code, 'HEALTH_STATUS');
    assert.match(failure.message, new RegExp(`GET /healthz answered ${status}`));
    return failure.next_step;
  };
  assert.match(next(404), /has no \/healthz: name a path that exists with --health-check-path/);
  assert.match(next(401), /asks for a login/);
  assert.match(next(403), /asks for a login/);
  assert.match(next(503), /last log lines/);
  assert.match(next(400), /host name localhost/);
});

test('redirects name their target', () => {
  const moved = diagnose(seen({ last_probe: answer({ status: 302, location: '/login?next=/' }) }));
  assert.equal(moved.code, 'HEALTH_REDIRECT');
  assert.match(moved.message, /redirects to \/login\?next=\//);
  assert.match(moved.next_step, /for example \/login\.$/);
  const https = diagnose(seen({ last_probe: answer({ status: 301, location: 'https://localhost/' }) }));
  assert.match(https.next_step, /forces https/);
});

test('silence, and something that is not HTTP', () => {
  const slow = diagnose(seen({ last_probe: answer({ error: 'timed out', duration_ms: 5000 }) }));
  assert.equal(slow.code, 'HEALTH_TIMEOUT');
  assert.match(slow.message, /not answered within 5 s/);
  const tls = diagnose(seen({ last_probe: answer({ error: 'not http' }) }));
  assert.equal(tls.code, 'HEALTH_STATUS');
  assert.match(tls.next_step, /must not use https/);
});

test('exits: code, signal, limits, and the usual causes', () => {
  const crashed = diagnose(seen({ exit: exit({ exit_code: 1 }), log_tail: ['Error: no DATABASE_URL'] }));
  assert.equal(crashed.code, 'APP_CRASHED');
  assert.equal(crashed.exit_code, 1);
  assert.equal(crashed.message, 'The app ended with exit code 1 before it was healthy.');
  assert.deepEqual(crashed.log_tail, ['Error: no DATABASE_URL']);

  const signalled = diagnose(seen({ phase: 'grace', exit: exit({ signal: 'SIGSEGV' }) }));
  assert.equal(signalled.message, 'The app was ended by SIGSEGV during the grace period.');
  assert.equal(signalled.signal, 'SIGSEGV');

  assert.match(diagnose(seen({ exit: exit({ exit_code: 0 }) })).next_step, /stay in the foreground/);
  assert.match(diagnose(seen({ exit: exit({ exit_code: 127 }) })).next_step, /not found/);
  const taken = seen({ exit: exit({ exit_code: 1 }), log_tail: ['Error: listen EADDRINUSE :::3000'] });
  assert.match(diagnose(taken).next_step, /port 3000 was taken/);
});

test('out of memory: said by the driver, a SIGKILL at the limit, or V8 giving up', () => {
  const byDriver = diagnose(seen({ exit: exit({ reason: 'out_of_memory', signal: 'SIGKILL' }) }));
  assert.equal(byDriver.code, 'APP_OUT_OF_MEMORY');
  assert.equal(byDriver.out_of_memory, true);
  assert.match(byDriver.message, /limit 512 MiB/);

  const atLimit = exit({ reason: 'killed', signal: 'SIGKILL', peak_memory_bytes: 510 * MIB });
  assert.equal(diagnose(seen({ exit: atLimit })).code, 'APP_OUT_OF_MEMORY');
  const below = exit({ reason: 'killed', signal: 'SIGKILL', peak_memory_bytes: 90 * MIB });
  assert.equal(diagnose(seen({ exit: below })).code, 'APP_CRASHED');

  const heap = seen({
    exit: exit({ signal: 'SIGABRT' }),
    log_tail: [
      'FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory',
      'stack frame',
    ],
  });
  assert.equal(diagnose(heap).code, 'APP_OUT_OF_MEMORY');
});

test('a broken grace period, and a bounded log', () => {
  const log_tail = Array.from({ length: 80 }, (_, i) => `line ${i}`);
  const failure = diagnose(seen({ phase: 'grace', last_probe: answer({ status: 500 }), log_tail }));
  assert.equal(failure.code, 'HEALTH_UNSTABLE');
  assert.match(failure.message, /answered 500 during the grace period of 30 s/);
  assert.equal(failure.log_tail.length, 50);
  assert.equal(failure.log_tail.at(-1), 'line 79');
});

test('a crash whose log names what is missing: the next step names it too', () => {
  const crashed = (...log_tail: string[]) =>
    diagnose(seen({ exit: exit({ exit_code: 1 }), log_tail })).next_step;
  const module = /says that (\S+) cannot be found: add it to the dependencies/;
  assert.equal(module.exec(crashed("ModuleNotFoundError: No module named 'flask'"))?.[1], 'flask');
  assert.equal(module.exec(crashed("Error: Cannot find module 'express'"))?.[1], 'express');
  assert.equal(module.exec(crashed("Cannot find package '@acme/ui' imported from"))?.[1], '@acme/ui');
  assert.equal(
    module.exec(crashed("Error: Cannot find module './routes'")),
    null,
    'a file of the app itself',
  );
  assert.equal(module.exec(crashed("Error: Cannot find module '/workspace/dist/index.js'")), null);
  const variable = /says that (\S+) is missing: set it with `kiln env set`/;
  assert.equal(variable.exec(crashed('Error: DATABASE_URL is not set'))?.[1], 'DATABASE_URL');
  assert.equal(variable.exec(crashed("KeyError: 'SECRET_KEY'"))?.[1], 'SECRET_KEY');
  assert.equal(
    variable.exec(crashed('Missing required environment variable: STRIPE_KEY'))?.[1],
    'STRIPE_KEY',
  );
  assert.equal(variable.exec(crashed('TypeError: user_name is not defined')), null);
  assert.match(crashed('node: .env: not found'), /\.env cannot be found: files of that name are left out/);
  assert.match(crashed('Error: connect ECONNREFUSED 127.0.0.1:5432'), /another service refused/);
  const python = ['  File "/workspace/app.py", line 4', "SyntaxError: expected ':'", '[INFO] Worker exiting'];
  assert.match(crashed(...python), /ended with "SyntaxError: expected ':'"/);
  assert.match(crashed('TypeError [ERR_X]: a is no function'), /ended with "TypeError \[ERR_X\]: a is no/);
  assert.match(crashed('boom'), /most common cause/);
});

test('the port of the plan is held: who holds it, and the two ways out', () => {
  const held = { port: 4567, by: 'version 1 of shop, which is live' };
  const log_tail = ['Error: listen EADDRINUSE: address already in use :::4567'];
  const crashed = diagnose(seen({ held, log_tail, exit: exit({ exit_code: 1 }) }));
  assert.equal(crashed.code, 'APP_CRASHED');
  assert.match(crashed.message, /Port 4567 is held by version 1 of shop, which is live/);
  assert.match(crashed.next_step, /PORT.*--isolation docker/);
  assert.match(diagnose(seen({ held })).message, /did not listen.*held by version 1 of shop/);
  const other = ['listen EADDRINUSE: address already in use 127.0.0.1:9090'];
  const second = diagnose(seen({ held, exit: exit({ exit_code: 1 }), log_tail: other }));
  assert.doesNotMatch(second.message, /held/, 'another port than that of the plan');
  assert.match(second.next_step, /port 9090 was taken.*published with \(4567\)/);
  const unrelated = diagnose(seen({ held, exit: exit({ exit_code: 1 }), log_tail: ['oops'] }));
  assert.doesNotMatch(unrelated.message, /held/);
});

test('a file of the app that is missing: in a folder that is left out, or nowhere', () => {
  const next = (line: string) => diagnose(seen({ exit: exit({ exit_code: 1 }), log_tail: [line] })).next_step;
  assert.match(next("Error: Cannot find module '/workspace/dist/index.js'"), /dist.*!dist into \.kilnignore/);
  assert.match(next("Error: Cannot find module './src/build/m.js'"), /!build into \.kilnignore/);
  assert.match(next("Error: Cannot find module '/workspace/server.js'"), /server\.js cannot be found/);
  assert.match(next("Error: Cannot find module 'express'"), /add it to the dependencies/);
});

test('a taken port that the plan does not name: the log says which, and the next step how to name it', () => {
  for (const line of [
    'Error: listen EADDRINUSE: address already in use :::3000',
    '2026/11/26 06:05:07 listen tcp :3000: bind: address already in use',
    "[Errno 98] error while attempting to bind on address ('0.0.0.0', 3000): address already in use",
    "[2026-11-26 06:05:07 +0000] [12] [ERROR] Connection in use: ('0.0.0.0', 3000)",
    'Address already in use - bind(2) for "0.0.0.0" port 3000 (Errno::EADDRINUSE)',
  ])
    assert.match(
      diagnose(seen({ exit: exit({ exit_code: 1 }), log_tail: [line] })).next_step,
      /port 3000 was taken.* publish with --port 3000\./,
      line,
    );
  const unnamed = ['OSError: [Errno 98] Address already in use'];
  const { next_step } = diagnose(seen({ exit: exit({ exit_code: 1 }), log_tail: unnamed }));
  assert.match(next_step, /the port was taken/);
});
