import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, stat, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { tempDir } from '../../test/support/folders.ts';
import { folderHolder, keptSecret, lockFolder, makeFolders } from './folders.ts';

test('the folder is one engine’s at a time; the second is told who holds it', async () => {
  const data = await tempDir('lock');
  const lock = lockFolder(data, 'http://127.0.0.1:1');
  assert.throws(() => lockFolder(data, 'http://127.0.0.1:2'), /process id \d+ .*API http:\/\/127\.0\.0\.1:1/);
  lock.announce('http://127.0.0.1:7070');
  assert.equal(folderHolder(data)?.api, 'http://127.0.0.1:7070');
  lock.release();
  assert.equal(folderHolder(data), null);
  lockFolder(data, '').release();
});

test('a lock left by a dead process, or by another one with the same pid, is replaced', async () => {
  const data = await tempDir('lock');
  const child = spawn(process.execPath, ['-e', '']);
  await once(child, 'exit');
  for (const holder of [
    { pid: child.pid, started: null },
    { pid: process.pid, started: 'another boot:1' },
  ]) {
    await writeFile(
      path.join(data, 'kiln.lock'),
      JSON.stringify({ host: os.hostname(), api: '', ...holder }),
    );
    lockFolder(data, '').release();
  }
  await writeFile(path.join(data, 'kiln.lock'), 'torn by a power cut');
  lockFolder(data, '').release();
});

test('a lock of another host counts as held: it cannot be checked from here', async () => {
  const data = await tempDir('lock');
  const holder = { pid: 1, host: 'elsewhere', started: null, api: 'http://elsewhere' };
  await writeFile(path.join(data, 'kiln.lock'), JSON.stringify(holder));
  assert.throws(() => lockFolder(data, ''), /elsewhere/);
});

test('secrets are made once, and only their owner reads them', async () => {
  const { data } = await makeFolders(path.join(await tempDir('secret'), 'data'));
  const first = await keptSecret(data, 'vault.key');
  assert.match(first, /^[0-9a-f]{64}$/);
  assert.equal(await keptSecret(data, 'vault.key'), first);
  assert.equal((await stat(path.join(data, 'vault.key'))).mode & 0o777, 0o600);
  assert.equal((await stat(data)).mode & 0o777, 0o700);
  assert.equal((await readFile(path.join(data, 'vault.key'), 'utf8')).trim(), first);
});
