import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { sql } from 'kysely';
import type { KilnError } from '../domain/errors.ts';
import { testDatabase } from './database.fixture.ts';
import { openDatabase } from './db.ts';

test('a later start finds its migrations done, and carries out what is missing', async () => {
  const dir = await mkdtemp(path.join(os.tmpdir(), 'kiln-db-'));
  const start = async (change?: string) => {
    const { db, close } = await openDatabase({ dir });
    try {
      if (change) await sql.raw(change).execute(db);
      const { rows } = await sql<{ name: string }>`
        select name from kysely_migration order by name`.execute(db);
      return rows.map((row) => row.name);
    } finally {
      await close();
    }
  };
  try {
    const first = await start();
    assert.ok(first.includes('001-start'));
    assert.deepEqual(await start(), first);
    // Its column is there already: that it complains shows that it was not passed over.
    await start(`delete from kysely_migration where name = '${first.at(-1)}'`);
    await assert.rejects(start(), /could not be migrated.*already exists/);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
});

test('a database that a newer Kiln has migrated is refused', async () => {
  const dir = await mkdtemp(path.join(os.tmpdir(), 'kiln-db-'));
  try {
    const { db, close } = await openDatabase({ dir });
    await sql`insert into kysely_migration (name, timestamp) values ('999-later', '2999-01-01')`.execute(db);
    await close();
    await assert.rejects(openDatabase({ dir }), /could not be migrated.*999-later/);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
});

test('a database that cannot be reached: where, why, and no password', async () => {
  const where = { url: 'postgres://kiln:hunter2@127.0.0.1:1/x' };
  await assert.rejects(openDatabase(where), (error: KilnError) => {
    assert.equal(error.code, 'UNAVAILABLE');
    assert.match(
      error.message,
      /The database at 127\.0\.0\.1:1\/x cannot be used: .*ECONNREFUSED.*--database/,
    );
    assert.doesNotMatch(error.message, /hunter2/);
    return true;
  });
});

test('opening a database and parsing many statements takes no more memory than a small server has', async () => {
  const dir = await mkdtemp(path.join(os.tmpdir(), 'kiln-db-'));
  const script = `
    import { openDatabase } from ${JSON.stringify(import.meta.resolve('./db.ts'))};
    import { sql } from 'kysely';
    const { db, close } = await openDatabase({ dir: process.argv[1] });
    for (let n = 0; n < 400; n++)
      await sql.raw('select count(*) as n' + n + ' from deployments d join versions v on v.deployment_id = d.id').execute(db);
    await close();
    console.log(process.resourceUsage().maxRSS);`;
  try {
    const { stdout } = await promisify(execFile)(process.execPath, [
      '--input-type=module',
      '-e',
      script,
      dir,
    ]);
    const peak_mib = Number(stdout) / 1024;
    // 240 when the optimising compiler keeps off the parser, 760 when it does not.
    assert.ok(peak_mib > 0 && peak_mib < 480, `${peak_mib} MiB`);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
});

test('the embedded database grows no further than what is in it at once', async () => {
  const database = await testDatabase();
  try {
    const { db } = database;
    const size = async () => {
      const { rows } = await sql<{ bytes: number }>`select pg_relation_size('settings') as bytes`.execute(db);
      return Number(rows[0]!.bytes);
    };
    const fill = () =>
      sql`insert into settings (name, value)
          select n::text, to_jsonb(repeat(md5(n::text), 40)) from generate_series(1, 500) n`.execute(db);
    await fill();
    const full = await size();
    for (let n = 0; n < 5; n++) {
      await sql`delete from settings`.execute(db);
      await database.reclaim();
      await fill();
    }
    assert.ok((await size()) <= 2 * full, `${await size()} bytes, ${full} at first`);
  } finally {
    await database.close();
  }
});
