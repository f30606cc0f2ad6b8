import assert from 'node:assert/strict';
import { mkdir, rm, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { tempDir } from '../../test/support/folders.ts';
import { makeVerifier } from '../release/verify.ts';
import type { Snapshot } from '../source/snapshot.ts';
import { testDatabase } from '../store/database.fixture.ts';
import { fileObjectStore } from '../store/objects/files.ts';
import { freeze } from './1-snapshot.ts';
import type { Ports } from './run.ts';

test('an unchanged workspace whose snapshot was found damaged is read anew', async () => {
  const dir = await tempDir('freeze');
  const database = await testDatabase();
  try {
    const root = path.join(dir, 'workspace');
    await mkdir(root);
    await writeFile(path.join(root, 'index.html'), 'hello');
    const objects = fileObjectStore(path.join(dir, 'objects'));
    const verifier = makeVerifier(objects);
    const limits = { source: { max_bytes: 1e6, max_files: 100 } };
    const ports = { db: database.db, objects, verifier, limits, tmp_dir: path.join(dir, 'tmp') };
    const take = () =>
      freeze(ports as unknown as Ports, {
        root,
        overrides: {},
        include_git: false,
        cache_file: path.join(dir, 'cache'),
      });
    let snapshot: Snapshot;
    // Files that were written a moment ago are not recognised by their times.
    for (snapshot = await take(); !snapshot.unchanged; snapshot = await take()) await setTimeout(50);
    const stored = { object_key: snapshot.key, sha256: snapshot.sha256 };
    await truncate(objects.localPath(snapshot.key)!, 10);
    assert.equal((await take()).unchanged, true, 'nobody has looked at it');
    assert.equal(await verifier.verify(stored), 'corrupt');
    assert.equal((await take()).unchanged, false);
    assert.equal(await verifier.verify(stored), 'whole');
    assert.equal((await take()).unchanged, true);
  } finally {
    await database.close();
    await rm(dir, { recursive: true, force: true });
  }
});
