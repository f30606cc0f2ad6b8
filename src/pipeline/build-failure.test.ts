import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ExitReason, MachineExit } from '../isolation/driver.ts';
import { buildFailure } from './build-failure.ts';

const limits = {
  time_ms: 1000,
  memory_bytes: 1 << 30,
  processes: 9,
  disk_bytes: 1,
  log_bytes: 1,
  on_log_limit: 'kill' as const,
};
const exit = (
  reason: ExitReason,
  exit_code: number | null = null,
  signal: string | null = null,
): MachineExit => ({
  reason,
  exit_code,
  signal,
  peak_memory_bytes: 0,
  peak_processes: 0,
  duration_ms: 0,
});
const code = (of: MachineExit) => buildFailure(of, 'make', limits, ['last line'])?.code ?? null;

test('each end of a command has its own code', () => {
  assert.equal(code(exit('exited', 0)), null);
  assert.equal(code(exit('exited', 2)), 'BUILD_FAILED');
  assert.equal(code(exit('exited', 127)), 'TOOLCHAIN_MISSING');
  assert.equal(code(exit('exited', null, 'SIGSEGV')), 'BUILD_FAILED');
  assert.equal(code(exit('timed_out')), 'BUILD_TIMEOUT');
  assert.equal(code(exit('out_of_memory')), 'BUILD_OUT_OF_MEMORY');
  assert.equal(code(exit('too_many_processes')), 'BUILD_TOO_MANY_PROCESSES');
  assert.equal(code(exit('out_of_disk')), 'BUILD_OUT_OF_DISK');
  assert.equal(code(exit('log_limit')), 'BUILD_LOG_TOO_LARGE');
});

test('a failure carries what a person needs: command, code, log, next step', () => {
  const failure = buildFailure(exit('exited', 2), 'x'.repeat(500), limits, ['last line']);
  assert.equal(failure?.exit_code, 2);
  assert.deepEqual(failure?.log_tail, ['last line']);
  assert.ok(failure!.message.length < 200);
  assert.match(failure!.next_step, /Production is unchanged/);
});

test('the plan before the build, and what makes programs findable, are not shown again', () => {
  const log = ['── plan', 'mode auto: No matching version found for', '── build', '$ npm ci', 'boom'];
  const setup = 'export PYTHONPATH="$PWD/x" PATH="$PWD/node_modules/.bin:$PATH"; ';
  const failure = buildFailure(exit('exited', 1), `${setup}npm ci`, limits, log)!;
  assert.deepEqual(failure.log_tail, ['$ npm ci', 'boom']);
  assert.equal(failure.message, '`npm ci` ended with exit code 1.');
  assert.match(failure.next_step, /Read the end of the build log/);
});

test('what many people meet is named in the next step', () => {
  const next = (...log: string[]) => buildFailure(exit('exited', 1), 'npm ci', limits, log)!.next_step;
  const sync =
    'npm error `npm ci` can only install packages when your package.json and package-lock.json or npm-shrinkwrap.json are in sync.';
  assert.match(next('npm error code EUSAGE', 'npm error', sync), /package-lock\.json does not fit/);
  assert.match(next('npm error code ETARGET'), /not in the registry/);
  assert.match(next('npm error code E404'), /or it is private/);
  assert.match(next('error: lockfile had changes, but lockfile is frozen'), /bun\.lock does not fit/);
  const poetry =
    'pyproject.toml changed significantly since poetry.lock was last generated. Run `poetry lock`';
  assert.match(next(poetry), /poetry\.lock does not fit/);
  assert.match(next("KeyError: 'SECRET_KEY'"), /kiln env set NAME SECRET_KEY=… --build/);
  const unreachable = '[kiln] network: binaries.example:443 could not be reached: no such name. Try again';
  assert.match(next(unreachable, 'Error: 502'), /could not reach binaries\.example:443/);
  assert.match(next(unreachable, 'npm error code ERESOLVE'), /legacy-peer-deps/);
  assert.match(next('npm ERR! code ERESOLVE'), /legacy-peer-deps/);
  const angular =
    'Node.js version v20.1.0 detected. The Angular CLI requires a minimum Node.js version of v22.22.';
  assert.match(next(angular), /\.nvmrc/);
  assert.match(next('main.go:3:8: package app/build is not in std'), /!build into \.kilnignore/);
  assert.match(next('oops'), /Read the end of the build log/);

  // npm prints its help behind it: the line is shown all the same.
  const far = buildFailure(exit('exited', 1), 'npm ci', limits, [sync, ...Array(80).fill('npm error help')])!;
  assert.match(far.next_step, /package-lock/);
  assert.deepEqual([far.log_tail[0], far.log_tail.length], [sync, 50]);
});
