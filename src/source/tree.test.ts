import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { rename, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { statPaths } from './stat.ts';
import { plant, scratch, type Tree } from './tree.fixtures.ts';
import { Folders, KIND, ROW } from './tree.ts';

const skip = !existsSync('/proc/self/fd') && 'without /proc plain paths are used';

describe('Folders', { skip }, () => {
  it('enter no link, not even as their root', async () => {
    await using at = await scratch();
    await plant(at.dir, { 'host/x': 'of the host', 'tree/f/x': 'x', 'tree/link': { link: '../host' } });
    await symlink('tree', join(at.dir, 'to-tree'));
    assert.throws(() => new Folders(join(at.dir, 'to-tree')).at(''), { code: 'ENOTDIR' });
    const folders = new Folders(join(at.dir, 'tree'));
    assert.throws(() => folders.entry('link/x'), { code: 'ENOTDIR' });
    const rows = statPaths(folders, ['f/x', 'link', 'link/x', '']);
    const kinds = [0, 1, 2, 3].map((i) => rows[i * ROW.width + ROW.kind]);
    assert.deepEqual(kinds, [KIND.file, KIND.symlink, KIND.gone, KIND.dir]);
    folders.close();
  });

  it('stay in the tree they began in, however many there are', async () => {
    await using at = await scratch();
    const tree: Tree = {};
    for (let n = 0; n < 100; n++) tree[`tree/${n}/x`] = 'mine';
    await plant(at.dir, { ...tree, 'other/0/x': 'not mine' });
    const folders = new Folders(join(at.dir, 'tree'));
    folders.at('');
    await rename(join(at.dir, 'tree'), join(at.dir, 'moved'));
    await rename(join(at.dir, 'other'), join(at.dir, 'tree'));
    for (let n = 0; n < 100; n++) assert.equal(readFileSync(folders.entry(`${n}/x`), 'utf8'), 'mine');
    assert.equal(readFileSync(folders.entry('0/x'), 'utf8'), 'mine');

    folders.close();
  });
});
