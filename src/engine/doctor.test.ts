import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { test } from 'node:test';
import { tempDir } from '../../test/support/folders.ts';
import { testDatabase } from '../store/database.fixture.ts';
import type { EngineContext } from './context.ts';
import { examine } from './doctor.ts';
import { makeFolders } from './folders.ts';

test('a database that is away is a finding, not the end of the examination', async () => {
  const folders = await makeFolders(await tempDir('doctor'));
  const database = await testDatabase();
  const ctx = {
    ...{ id: 'eng_1', folders, database, db: database.db, builder: { name: 'process' } },
    ...{ driver: { name: 'process' }, runtime: null, image_builder: null, builder_base: 'host' },
  } as unknown as EngineContext;
  try {
    assert.equal((await examine(ctx, [])).database.ok, true);
    await database.close();
    const { ok, database: found, disk } = await examine(ctx, []);
    assert.deepEqual([ok, found.ok], [false, false]);
    assert.ok(found.detail.length > 0);
    assert.ok(disk.some(({ kind }) => kind === 'tmp'));
  } finally {
    await rm(folders.data, { recursive: true, force: true });
  }
});
