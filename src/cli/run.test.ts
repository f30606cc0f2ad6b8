import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { COMMANDS } from './commands.ts';
import { CliError, exitOfErrorCode, exitOfFailure } from './exit.ts';
import { FakeApi, run } from './fixture.ts';

const NOWHERE = ['--data', '/nonexistent/kiln'];

test('every command explains itself with examples, and every subcommand too', async () => {
  const missing: string[] = [];
  const look = async (path: string[]): Promise<void> => {
    const { code, stdout } = await run([...path, '--help']);
    assert.equal(code, 0, path.join(' '));
    if (!stdout.includes(`Examples:\n  `)) missing.push(path.join(' '));
    assert.match(stdout, /--json/, `${path.join(' ')} lists the global options`);
    const below = /\nCommands:\n((?: {2}.*\n)+)/.exec(stdout)?.[1] ?? '';
    if (path.length === 1)
      for (const [, name] of below.matchAll(/^ {2}(\w+)/gm))
        if (name !== 'help') await look([...path, name!]);
  };
  for (const { name } of COMMANDS) await look([name]);
  assert.deepEqual(missing, []);
});

test('help lists every command and the exit codes', async () => {
  const { code, stdout } = await run(['--help']);
  assert.equal(code, 0);
  for (const { name, summary } of COMMANDS)
    assert.ok(stdout.includes(name) && stdout.includes(summary.slice(0, 30)), name);
  for (const exit of ['3    your build failed', '4    your app is not healthy', '6    no engine'])
    assert.ok(stdout.includes(exit));
  assert.equal((await run([])).stdout, stdout);
  assert.match((await run(['help', 'rollback'])).stdout, /kiln rollback shop 3/);
});

test('what is unknown ends with 2 and names the nearest right one', async () => {
  const command = await run(['pubish', '.']);
  assert.equal(command.code, 2);
  assert.match(command.stderr, /Did you mean publish\?/);
  const option = await run(['publish', '--nmae', 'x']);
  assert.equal(option.code, 2);
  assert.match(option.stderr, /Did you mean --name\?/);
  const port = await run(['publish', '.', '--port', '99999']);
  assert.equal(port.code, 2);
  assert.match(port.stderr, /from 1 to 65535/);
  const excess = await run(['ls', 'x']);
  assert.equal(excess.code, 2);
});

test('with --json an error is one object on stdout and nothing else', async () => {
  for (const argv of [
    ['publish', '--nmae', '--json'],
    [...NOWHERE, 'ls', '--json'],
    ['publish', '/nonexistent', '--json'],
  ]) {
    const { code, stdout, stderr } = await run(argv);
    assert.equal(stderr, '', argv.join(' '));
    const object = JSON.parse(stdout);
    assert.equal(object.exit_code, code);
    assert.equal(object.ok, false);
    assert.equal(typeof object.error.message, 'string');
  }
});

test('with --json help and version are an object, and a missing subcommand is named', async () => {
  for (const argv of [
    ['--json', '--help'],
    ['env', '--help', '--json'],
    ['help', 'env', '--json'],
  ]) {
    const { code, stdout, stderr } = await run(argv);
    assert.deepEqual([code, stderr], [0, ''], argv.join(' '));
    assert.match(JSON.parse(stdout).help, /^Usage: kiln/);
  }
  assert.match(JSON.parse((await run(['--version', '--json'])).stdout).version, /^\d+\.\d+\.\d+/);
  const { code, stdout, stderr } = await run(['env', '--json']);
  assert.deepEqual([code, stderr], [2, '']);
  assert.deepEqual(JSON.parse(stdout).error.message, 'Which command? kiln env has ls, set, unset.');
  assert.equal(JSON.parse(stdout).error.code, 'BAD_INPUT');
  const bare = await run(['--json']);
  assert.equal(bare.code, 2);
  assert.match(JSON.parse(bare.stdout).error.message, /^Which command\? kiln has .*publish/);
  const people = await run(['env']);
  assert.equal(people.code, 2);
  assert.match(people.stderr, /Usage: kiln env/);
});

test('keys are shown where the process list does not show them', async () => {
  assert.match((await run(['mcp', '--help'])).stdout, /KILN_KEY=\S+ kiln mcp/);
});

test('no engine: exit 6 and how to start one', async () => {
  const { code, stderr } = await run([...NOWHERE, 'ls']);
  assert.equal(code, 6);
  assert.match(stderr, /kiln up/);
});

test('the key of the local engine goes to loopback only', async () => {
  const data = mkdtempSync(path.join(os.tmpdir(), 'kiln-cli-'));
  const api = new FakeApi();
  try {
    writeFileSync(path.join(data, 'api.key'), 'msk_local\n');
    assert.equal((await run(['ls', '--data', data, '--api', await api.listen()])).code, 0);
    assert.equal(api.seen[0]!.headers.authorization, 'Bearer msk_local');
    const { code, stderr } = await run(['ls', '--data', data, '--api', 'https://kiln.example.com']);
    assert.equal(code, 2);
    assert.match(stderr, /--key or KILN_KEY/);
    assert.equal((await run(['ls', '--api', 'not a url'])).code, 2);
  } finally {
    await api.close();
    rmSync(data, { recursive: true });
  }
});

test('without --api the lock of the data folder says where the engine is', async () => {
  const data = mkdtempSync(path.join(os.tmpdir(), 'kiln-cli-'));
  const api = new FakeApi();
  try {
    writeFileSync(path.join(data, 'api.key'), 'msk_local\n');
    const url = (await api.listen()).replace('127.0.0.1', '0.0.0.0');
    const holder = { pid: process.pid, host: os.hostname(), started: null, api: url };
    writeFileSync(path.join(data, 'kiln.lock'), JSON.stringify(holder));
    assert.equal((await run(['--data', data, 'ls'])).code, 0);
    writeFileSync(path.join(data, 'kiln.lock'), JSON.stringify({ ...holder, pid: 2 ** 22 }));
    assert.equal((await run(['--data', data, 'ls'])).code, 6, 'the holder is dead');
  } finally {
    await api.close();
    rmSync(data, { recursive: true });
  }
});

test('who is at fault decides the exit code', () => {
  assert.equal(exitOfFailure({ code: 'BUILD_FAILED', fault: 'user', stage: 'build' }), 3);
  assert.equal(exitOfFailure({ code: 'NO_PLAN', fault: 'user', stage: 'plan' }), 3);
  assert.equal(exitOfFailure({ code: 'APP_CRASHED', fault: 'user', stage: 'health' }), 4);
  assert.equal(exitOfFailure({ code: 'STORAGE_FAILED', fault: 'engine', stage: 'release' }), 1);
  assert.equal(exitOfFailure({ code: 'CANCELLED', fault: 'caller', stage: 'build' }), 5);
  assert.equal(exitOfErrorCode('SNAPSHOT_FAILED', 500), 1);
  assert.equal(exitOfErrorCode('invalid_token', 401), 2);
  assert.equal(exitOfErrorCode('HEALTH_GATE_FAILED', 409), 4);
  assert.equal(exitOfErrorCode('SUPERSEDED', 409), 5);
  assert.equal(exitOfErrorCode('HTTP_502', 502), 1);
  assert.equal(new CliError(1, 'X', 'm').next_step, null);
});
