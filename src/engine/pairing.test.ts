import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterEach, test } from 'node:test';
import { tempDir } from '../../test/support/folders.ts';
import { aDeployment } from '../../test/support/rows.ts';
import { testDatabase } from '../store/database.fixture.ts';
import type { Database } from '../store/db.ts';
import { makeFolders } from './folders.ts';
import { pairWithDatabase } from './pairing.ts';

const opened: Database[] = [];
afterEach(() => Promise.all(opened.splice(0).map((database) => database.close())));

async function aDatabase() {
  const database = await testDatabase();
  opened.push(database);
  return database.db;
}

const aFolder = async () => makeFolders(await tempDir('pairing'));

test('a folder and a database that once were started together stay together, and no others go with them', async () => {
  const [db, other_db] = [await aDatabase(), await aDatabase()];
  const [folder, other] = [await aFolder(), await aFolder()];
  await pairWithDatabase(db, folder);
  await pairWithDatabase(db, folder);
  await assert.rejects(pairWithDatabase(db, other), {
    code: 'CONFLICT',
    message: /belongs to another data folder/,
  });
  await pairWithDatabase(other_db, other);
  await assert.rejects(pairWithDatabase(other_db, folder), {
    code: 'CONFLICT',
    message: /not the one of this/,
  });
  const id = (await readFile(path.join(folder.data, 'database.id'), 'utf8')).trim();
  await assert.rejects(
    pairWithDatabase(db, other),
    new RegExp(id),
    'how to go on if they do belong together',
  );
});

test('an empty database is refused to a folder with workspaces or releases, and nothing is touched', async () => {
  for (const name of ['sandboxes', 'objects'] as const) {
    const folder = await aFolder();
    await mkdir(path.join(folder[name], 'sbx_1'));
    await writeFile(path.join(folder[name], 'sbx_1', 'work'), 'of hours');
    const before = await readdir(folder.data);
    await assert.rejects(pairWithDatabase(await aDatabase(), folder), {
      code: 'CONFLICT',
      message: /is empty/,
    });
    assert.deepEqual(await readdir(folder.data), before);
  }
});

test('those of an earlier Kiln are taken for a pair; a first start that was cut off goes on', async () => {
  const [db, folder] = [await aDatabase(), await aFolder()];
  await aDeployment(db);
  await mkdir(path.join(folder.sandboxes, 'sbx_1'));
  await pairWithDatabase(db, folder);
  const cut_off = await aFolder();
  await writeFile(path.join(cut_off.data, 'database.id'), 'abc\n');
  await pairWithDatabase(await aDatabase(), cut_off);
  assert.equal(await readFile(path.join(cut_off.data, 'database.id'), 'utf8'), 'abc\n');
});
