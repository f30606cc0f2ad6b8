import assert from 'node:assert/strict';
import { mkdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { tempDir } from '../../test/support/folders.ts';
import { changesBetween, lookAt } from './watch.ts';

test('each look tells what changed since the one before', async () => {
  const root = await tempDir('watch');
  const at = (...parts: string[]) => path.join(root, ...parts);
  await mkdir(at('src'));
  await writeFile(at('src', 'a.js'), 'one');
  await writeFile(at('b.txt'), 'b');
  let before = await lookAt(root, 1000);
  const told = async () => {
    const now = await lookAt(root, 1000);
    const changes = changesBetween(before, now).map(
      (c) => `${c.type} ${c.path}${c.is_dir ? '/' : ''} ${c.size_bytes}`,
    );
    before = now;
    return changes;
  };
  assert.deepEqual(await told(), []);
  await writeFile(at('src', 'a.js'), 'longer');
  await mkdir(at('dist'));
  await writeFile(at('dist', 'out.js'), 'x');
  await mkdir(at('node_modules', 'x'), { recursive: true });
  await writeFile(at('node_modules', 'x', 'i.js'), 'unwatched');
  assert.deepEqual(await told(), ['created dist/ 0', 'created dist/out.js 1', 'modified src/a.js 6']);
  // Of the same size, moved in: another file under the old name.
  await writeFile(at('new'), 'LONGER');
  await rename(at('new'), at('src', 'a.js'));
  assert.deepEqual(await told(), ['modified src/a.js 6']);
  await rm(at('src'), { recursive: true });
  await symlink('/etc', at('src'));
  const gone = await told();
  assert.deepEqual(gone.slice(0, 2), ['deleted src/a.js 0', 'deleted src/ 0']);
  assert.match(gone[2]!, /^created src \d+$/, 'a link, not what it points to');
  assert.equal(gone.length, 3);
  await rm(root, { recursive: true });
});
