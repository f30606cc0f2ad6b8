import assert from 'node:assert/strict';
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { tempDir } from '../../test/support/folders.ts';
import { packRootfs, packStatic } from './artifact.ts';
import { MemoryObjects } from './static-site.fixture.ts';

test('packing ends with a cancel, and leaves nothing behind', async () => {
  const dir = await tempDir('artifact');
  try {
    const [root, tmp_dir] = [path.join(dir, 'out'), path.join(dir, 'tmp')];
    for (const folder of [root, tmp_dir]) await mkdir(folder);
    await writeFile(path.join(root, 'index.html'), 'hello');
    const reason = new Error('it was cancelled');
    const objects = new MemoryObjects();
    const packing = {
      root,
      objects,
      tmp_dir,
      name: 'rel_1',
      max_bytes: 1e6,
      signal: AbortSignal.abort(reason),
    };
    const release = { command: '', cwd: '.', port: null, env: {}, base: 'host' };
    await assert.rejects(packStatic(packing), reason);
    await assert.rejects(packRootfs({ ...packing, release }), reason);
    assert.deepEqual([...objects.objects.keys(), ...(await readdir(tmp_dir))], []);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
});
