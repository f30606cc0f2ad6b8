import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { chmod, mkdir, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { tempDir } from '../../test/support/folders.ts';
import { aDeployment, aVersion } from '../../test/support/rows.ts';
import { testDatabase } from '../store/database.fixture.ts';
import { folderHolder, keptSecret, lockFolder, makeFolders } from './folders.ts';
import { openVault } from './vault-key.ts';

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

test('a lock left by a process that has ended, which nobody has asked for yet, is replaced', async (t) => {
  if (!existsSync('/proc/self/stat')) return t.skip('no /proc here');
  const data = await tempDir('lock');
  // The shell becomes a program that never asks for the children it was left.
  const parent = spawn('sh', ['-c', 'sleep 0 & echo $!; exec sleep 60'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  try {
    const [line] = await once(parent.stdout!, 'data');
    const pid = Number(String(line));
    while (!/\) Z /.test(await readFile(`/proc/${pid}/stat`, 'utf8')))
      await new Promise((resolve) => setTimeout(resolve, 20));
    const holder = { pid, host: os.hostname(), started: null, api: '' };
    await writeFile(path.join(data, 'kiln.lock'), JSON.stringify(holder));
    lockFolder(data, '').release();
  } finally {
    parent.kill('SIGKILL');
  }
});

test('of several that find a dead engine’s lock at once, one gets the folder', async () => {
  const rounds = 40;
  const data = await tempDir('lock-race');
  const stale = { pid: 2 ** 22 + 1, host: os.hostname(), started: 'another boot:1', api: '' };
  for (let n = 0; n < rounds; n++) {
    await mkdir(path.join(data, `${n}`));
    await writeFile(path.join(data, `${n}`, 'kiln.lock'), JSON.stringify(stale));
  }
  // Threads run side by side, and none of this waits for anything: the closest race there is.
  const racer = `
    const { parentPort, workerData } = require('node:worker_threads');
    import(workerData.module).then(({ lockFolder }) => {
      const won = [];
      for (let n = 0; n < workerData.rounds; n++) {
        Atomics.add(workerData.arrived, n, 1);
        while (Atomics.load(workerData.arrived, n) < workerData.racers);
        try { lockFolder(workerData.data + '/' + n, ''); won.push(n); } catch {}
      }
      parentPort.postMessage(won);
    });`;
  const arrived = new Int32Array(new SharedArrayBuffer(4 * rounds));
  const workerData = { data, rounds, arrived, racers: 2, module: import.meta.resolve('./folders.ts') };
  const won = await Promise.all(
    [1, 2].map(async () => {
      const [list] = await once(new Worker(racer, { eval: true, workerData }), 'message');
      return list as number[];
    }),
  );
  assert.deepEqual(
    won.flat().toSorted((a, b) => a - b),
    Array.from({ length: rounds }, (_, n) => n),
  );
  for (let n = 0; n < rounds; n++) assert.deepEqual(await readdir(path.join(data, `${n}`)), ['kiln.lock']);
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

test('an empty file is no secret, and a half-made one is not in the way', async () => {
  const { data } = await makeFolders(path.join(await tempDir('secret'), 'data'));
  const file = path.join(data, 'engine.id');
  await writeFile(file, '');
  await writeFile(`${file}.part`, 'eng_ha');
  const id = await keptSecret(data, 'engine.id', () => 'eng_1');
  assert.equal(id, 'eng_1');
  assert.equal(await keptSecret(data, 'engine.id', () => 'eng_2'), 'eng_1');
  assert.deepEqual(
    (await readdir(data)).filter((name) => name.includes('.part')),
    [],
  );
});

test('a vault key that is gone is made anew only while nothing is sealed with it', async () => {
  const { data } = await makeFolders(path.join(await tempDir('secret'), 'data'));
  const file = path.join(data, 'vault.key');
  const database = await testDatabase();
  try {
    const { db } = database;
    await writeFile(file, '');
    const vault = await openVault(db, data);
    assert.equal((await openVault(db, data)).open(vault.seal('value', 'here'), 'here'), 'value');
    const deployment = await aDeployment(db);
    const version = await db.transaction().execute((trx) => aVersion(trx, deployment, 1));
    await db
      .updateTable('versions')
      .set({ env_encrypted: vault.seal('{}', version.id) })
      .where('id', '=', version.id)
      .execute();
    const key = await readFile(file, 'utf8');
    for (const lose of [() => rm(file), () => writeFile(file, ''), () => writeFile(file, key.slice(0, 20))]) {
      await lose();
      await assert.rejects(openVault(db, data), /vault\.key .* Restore it from a backup/s);
    }
    await writeFile(file, key);
    await openVault(db, data);
  } finally {
    await database.close();
  }
});

const linux = {
  skip: process.platform !== 'linux' && 'needs a folder that nobody may change, /proc/self/task',
};

test('nobody else looks into the folders, also where the data folder was there before', linux, async () => {
  const data = await tempDir('modes');
  await mkdir(path.join(data, 'logs/builds'), { recursive: true });
  await mkdir(path.join(data, 'sandboxes'));
  for (const folder of ['', 'logs', 'logs/builds', 'sandboxes']) await chmod(path.join(data, folder), 0o755);
  const left_open: string[] = [];
  await makeFolders(data, (dir) => left_open.push(dir));
  for (const name of await readdir(data))
    assert.equal((await stat(path.join(data, name))).mode & 0o777, 0o700, name);
  assert.equal((await stat(path.join(data, 'logs/builds'))).mode & 0o777, 0o700);
  assert.equal((await stat(data)).mode & 0o777, 0o755, 'the folder itself is its maker’s to open or close');
  assert.equal(left_open.length, 0);

  await rm(path.join(data, 'tmp'), { recursive: true });
  await symlink('/proc/self/task', path.join(data, 'tmp'));
  const { tmp } = await makeFolders(data, (dir) => left_open.push(dir));
  assert.deepEqual(left_open, [tmp], 'one whose mode cannot be changed is named, and used all the same');
});
