import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { FakeApi, SUCCESS } from './fixture.ts';

const root = path.join(import.meta.dirname, '..', '..');
const main = path.join(root, 'src', 'main.ts');
const launcher = path.join(root, 'bin', 'kiln.mjs');
const dir = mkdtempSync(path.join(os.tmpdir(), 'kiln-main-'));
after(() => rmSync(dir, { recursive: true }));

function start(node: string, args: string[], env: Record<string, string> = {}): ChildProcess {
  return spawn(node, args, {
    env: { PATH: '/usr/bin:/bin', HOME: dir, KILN_DATA: path.join(dir, 'data'), ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

async function finish(child: ChildProcess): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const text = (stream: NodeJS.ReadableStream) => Array.fromAsync(stream).then((pieces) => pieces.join(''));
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
  const [stdout, stderr, code] = await Promise.all([text(child.stdout!), text(child.stderr!), ended]);
  return { code, stdout, stderr };
}

test('the exit code comes out of the process, and of the launcher', async () => {
  for (const args of [[main], [launcher]]) {
    const { code, stdout } = await finish(start(process.execPath, [...args, 'ls', '--json']));
    assert.equal(code, 6, args[0]);
    assert.equal(JSON.parse(stdout).error.code, 'NO_ENGINE');
  }
});

const older = '/usr/bin/node';
const version = existsSync(older) ? await finish(start(older, ['--version'])) : null;
const is_older = version !== null && /^v(20|21|22|23)\./.test(version.stdout);

test('an older Node starts the newer one', {
  skip: !is_older && 'no Node older than 24 at /usr/bin/node',
}, async () => {
  const { code, stdout } = await finish(
    start(older, [launcher, 'plan', path.join(root, 'examples', 'hello'), '--json']),
  );
  assert.equal(code, 0);
  assert.equal(JSON.parse(stdout).kind, 'dynamic');
});

test('a signal reaches the command through the launcher', async () => {
  const api = new FakeApi();
  api.script = { ...SUCCESS, stages: Array.from({ length: 1000 }, () => 'build') };
  try {
    const env = { KILN_API: await api.listen(), KILN_KEY: 'msk_test' };
    const node = is_older ? older : process.execPath;
    const child = start(node, [launcher, 'publish', path.join(root, 'examples', 'hello')], env);
    api.intercept = ({ path: at }) => {
      if (at.startsWith('/operations/')) child.kill('SIGTERM');
      return false;
    };
    const { code, stderr } = await finish(child);
    assert.equal(code, 130);
    assert.match(stderr, /The publish goes on/);
  } finally {
    await api.close();
  }
});
