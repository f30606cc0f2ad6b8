import assert from 'node:assert/strict';
import fs from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { sql } from 'kysely';

test('a commit is on the disk before it is acknowledged', async (t) => {
  const synced: string[] = [];
  const { fsyncSync } = fs;
  fs.fsyncSync = (fd) => {
    synced.push(fs.existsSync('/proc/self/fd') ? fs.readlinkSync(`/proc/self/fd/${fd}`) : 'pg_wal');
    fsyncSync(fd);
  };
  syncBuiltinESMExports();
  const dir = await mkdtemp(path.join(os.tmpdir(), 'kiln-synced-'));
  t.after(async () => {
    fs.fsyncSync = fsyncSync;
    syncBuiltinESMExports();
    await rm(dir, { recursive: true });
  });
  const { openDatabase } = await import('./db.ts');
  const { db, close } = await openDatabase({ dir: path.join(dir, 'database') });
  t.after(close);
  await sql`create table t (n int)`.execute(db);
  for (let n = 0; n < 3; n++) {
    synced.length = 0;
    await sql`insert into t values (${n})`.execute(db);
    assert.match(synced.join('\n'), /pg_wal/, 'the write-ahead log');
  }
  const { rows } = await sql<{ fsync: string }>`show fsync`.execute(db);
  assert.equal(rows[0]?.fsync, 'on');
});
