import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { after, beforeEach, test } from 'node:test';
import { sql } from 'kysely';
import { openDatabase } from './db.ts';
import { placePrepared, prepareDatabase, preparedFolder } from './prepared.ts';

const top = await mkdtemp(path.join(os.tmpdir(), 'kiln-prepared-'));
after(() => rm(top, { recursive: true }));
let n = 0;
let dir: string;
let from: string;
beforeEach(async () => {
  from = path.join(top, String(n++), 'prepared');
  dir = path.join(path.dirname(from), 'database');
  await mkdir(dir, { recursive: true });
});
const nothing = async () => assert.fail('must not be made');

test('belongs to the version of PGlite that is installed; the installer knows it by the same name', async () => {
  const manifest = path.join(preparedFolder(), '../../@electric-sql/pglite/package.json');
  const { version } = JSON.parse(await readFile(manifest, 'utf8'));
  assert.ok(path.basename(preparedFolder()).startsWith(`database-${version}-`));
  // A whole install with nothing to install: what it says is that it prepares a database, unless it finds this one.
  const root = path.join(top, 'install');
  await cp(path.join(import.meta.dirname, 'migrations'), path.join(root, 'src/store/migrations'), {
    recursive: true,
  });
  for (const [name, content] of Object.entries({
    'package.json': '{}',
    'package-lock.json': '{}',
    'scripts/install.mjs': await readFile(path.join(import.meta.dirname, '../../scripts/install.mjs')),
    'node_modules/.package-lock.json': '{}',
    'node_modules/node/bin/node': '',
    'node_modules/@electric-sql/pglite/package.json': JSON.stringify({ version }),
  })) {
    await mkdir(path.dirname(path.join(root, name)), { recursive: true });
    await writeFile(path.join(root, name), content);
  }
  const install = () =>
    spawnSync(process.execPath, [path.join(root, 'scripts/install.mjs')], { encoding: 'utf8' });
  assert.match(install().stderr, /Preparing an empty database/);
  await mkdir(path.join(root, 'node_modules/.kiln', path.basename(preparedFolder())), { recursive: true });
  const { status, stderr } = install();
  assert.deepEqual([status, stderr], [0, '']);
});

test('takes the place of those of other versions', async () => {
  const folder = path.dirname(from);
  const put = (name: string) => mkdir(path.join(folder, name), { recursive: true });
  const stays = ['compiled', 'database', 'database-0.6.0-0123456789ab.x1Y2z3'];
  for (const name of [...stays, 'database-0.5.16', 'database-0.5.16-0123456789ab']) await put(name);
  await prepareDatabase(path.join(folder, 'database-0.6.0-ba9876543210'), (made) =>
    writeFile(path.join(made, 'PG_VERSION'), '17'),
  );
  assert.deepEqual((await readdir(folder)).sort(), [...stays, 'database-0.6.0-ba9876543210'].sort());
});

test('is a database like any other, once it is copied', async () => {
  await prepareDatabase(from, async (made) => {
    const database = await openDatabase({ dir: made });
    await database.close();
  });
  const before = await readdir(from, { recursive: true });
  await placePrepared(dir, () => from);
  assert.deepEqual((await readdir(dir, { recursive: true })).sort(), before.sort());
  for (let start = 0; start < 2; start++) {
    const { db, close } = await openDatabase({ dir });
    const { rows } = await sql<{ n: number }>`select count(*)::int as n from tenants`.execute(db);
    assert.equal(rows[0]?.n, 0);
    await close();
  }
  assert.deepEqual((await readdir(from, { recursive: true })).sort(), before.sort(), 'used, not touched');
});

test('is made once, whole or not at all', async () => {
  const fail = async (made: string) => {
    await writeFile(path.join(made, 'PG_VERSION'), '1');
    throw new Error('disk full');
  };
  await assert.rejects(prepareDatabase(from, fail), /disk full/);
  assert.deepEqual(await readdir(path.dirname(from)), ['database']);
  const make = (made: string) => writeFile(path.join(made, 'PG_VERSION'), '17');
  await Promise.all([prepareDatabase(from, make), prepareDatabase(from, make)]);
  await prepareDatabase(from, nothing);
  assert.deepEqual((await readdir(path.dirname(from))).sort(), ['database', 'prepared']);
});

test('goes to an empty folder only; without one nothing happens', async () => {
  await placePrepared(dir, () => from);
  assert.deepEqual(await readdir(dir), []);
  await prepareDatabase(from, (made) => writeFile(path.join(made, 'PG_VERSION'), '17'));
  // Left by a start that was killed while it copied.
  await mkdir(`${dir}.new`);
  await writeFile(path.join(`${dir}.new`, 'half'), '');
  await placePrepared(dir, () => from);
  assert.deepEqual(await readdir(dir), ['PG_VERSION']);
  assert.ok(!existsSync(`${dir}.new`));
  await writeFile(path.join(dir, 'PG_VERSION'), 'mine');
  await placePrepared(dir, () => from);
  assert.equal(await readFile(path.join(dir, 'PG_VERSION'), 'utf8'), 'mine');
});
