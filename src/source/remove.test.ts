import assert from 'node:assert/strict';
import { chmod, mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { insideWorkspace } from './paths.ts';
import { makeBeside, purge, removeInside } from './remove.ts';
import { plant, scratch } from './tree.fixtures.ts';

describe('removing what a sandbox may be changing', () => {
  it('takes trees of any depth and any names, and leaves what links point to', async () => {
    await using at = await scratch();
    await plant(at.dir, { 'host/file': 'stays' });
    const root = await plant(join(at.dir, 'workspace'), {
      'gone/file': 'x',
      'gone/a/b/c/file': 'x',
      'gone/a/empty': { dir: true },
      'gone/link': { link: '../../host' },
      'gone/a/link': { link: join(at.dir, 'host') },
      kept: 'x',
    });
    await writeFile(Buffer.concat([Buffer.from(join(root, 'gone/a/')), Buffer.from([0x6e, 0xff])]), 'x');
    await insideWorkspace(root, async (folders) => {
      let deep = 'gone/deep';
      for (let n = 0; n < 400; n++, deep += '/ten-letters')
        await mkdir(join(folders.entry(deep).replace(/\/[^/]*$/, ''), deep.split('/').at(-1)!));
      await removeInside(folders, 'gone');
    });
    assert.deepEqual(await readdir(root), ['kept']);
    assert.deepEqual((await readdir(at.dir)).sort(), ['host', 'workspace'], 'nothing is left beside');
    assert.equal(await readFile(join(at.dir, 'host/file'), 'utf8'), 'stays');
  });

  it('takes a link itself', async () => {
    await using at = await scratch();
    await plant(at.dir, { 'host/file': 'stays' });
    const root = await plant(join(at.dir, 'workspace'), {});
    await symlink(join(at.dir, 'host'), join(root, 'link'));
    await insideWorkspace(root, (folders) => removeInside(folders, 'link'));
    assert.deepEqual(await readdir(root), []);
    assert.deepEqual(await readdir(join(at.dir, 'host')), ['file']);
  });

  const is_root = process.getuid?.() === 0;
  const skip = is_root && 'root may write to every folder';
  it('takes folders that their owner may not write to, or not even read', { skip }, async () => {
    await using at = await scratch();
    const root = await plant(join(at.dir, 'workspace'), { 'gone/go/pkg/mod/file': 'x', 'gone/shut/x': 'x' });
    await chmod(join(root, 'gone/shut'), 0o000);
    for (const folder of ['gone/go/pkg/mod', 'gone/go/pkg', 'gone/go', 'gone'])
      await chmod(join(root, folder), 0o555);
    await insideWorkspace(root, (folders) => removeInside(folders, 'gone'));
    assert.deepEqual(await readdir(root), []);
    assert.deepEqual(await readdir(at.dir), ['workspace']);
  });

  it('purges a folder that is not there, and one that is made anew', async () => {
    await using at = await scratch();
    const beside = await makeBeside(join(at.dir, 'workspace'));
    await purge(beside);
    await purge(beside);
    assert.deepEqual(await readdir(at.dir), []);
  });
});
