import assert from 'node:assert/strict';
import { constants } from 'node:fs';
import { mkdir, mkdtemp, readFile, realpath, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { KilnError } from '../domain/errors.ts';
import { followInside, insideWorkspace, openInside, resolveAtRest } from './paths.ts';

const isForbidden = (error: unknown) => error instanceof KilnError && error.code === 'FORBIDDEN_PATH';

describe('paths of users', () => {
  let base = '';
  let root = '';
  before(async () => {
    base = await realpath(await mkdtemp(join(tmpdir(), 'kiln-paths-')));
    root = join(base, 'root');
    await mkdir(join(root, 'a/b'), { recursive: true });
    await mkdir(join(base, 'rootless'));
    await writeFile(join(root, 'a/file'), 'inside');
    await writeFile(join(base, 'secret'), 'outside');
    await symlink('a', join(root, 'in'));
    await symlink('..', join(root, 'up'));
    await symlink('../rootless', join(root, 'sibling'));
    await symlink('../not-there', join(root, 'dangling'));
    await symlink('../secret', join(root, 'stolen'));
    await symlink('loop', join(root, 'loop'));
    await symlink(root, join(base, 'link-to-root'));
  });
  after(() => rm(base, { recursive: true }));

  it('maps all spellings to a path inside', async () => {
    const spellings = [
      '/workspace/a/b',
      'a/b',
      './a/b',
      'a/./b/',
      '/workspace//a/b',
      'a/x/../b',
      'in/b',
      '/workspace/in/b',
    ];
    for (const path of spellings) assert.equal(await resolveAtRest(root, path), join(root, 'a/b'), path);
    for (const path of ['/workspace', '/workspace/', '.', ''])
      assert.equal(await resolveAtRest(root, path), root, path);
    assert.equal(await resolveAtRest(root, 'new/deep/file'), join(root, 'new/deep/file'));
    assert.equal(await resolveAtRest(root, 'in/new'), join(root, 'a/new'));
    assert.equal(await resolveAtRest(root, '...'), join(root, '...'));
    assert.equal(await resolveAtRest(join(base, 'link-to-root'), 'in/new'), join(root, 'a/new'));
  });

  it('refuses what leaves, also through links', async () => {
    const leaving = [
      '..',
      '../secret',
      'a/../../secret',
      '/etc/passwd',
      '/workspace/../secret',
      '/workspacex/a',
      '/',
      'up',
      'up/secret',
      'up/new-file',
      'sibling/x',
      'dangling',
      'dangling/x',
      'stolen',
      'loop',
      'loop/x',
      'a\0b',
      'a/'.repeat(3000),
      'n'.repeat(256),
    ]; // prettier-ignore
    for (const path of leaving)
      await assert.rejects(resolveAtRest(root, path), isForbidden, path.slice(0, 50));
  });

  it('opens files inside, new and old, and nothing else', async () => {
    const { O_RDONLY, O_WRONLY, O_CREAT, O_TRUNC } = constants;
    await insideWorkspace(root, async (folders) => {
      const file = await openInside(folders, '/workspace/in/file', O_RDONLY);
      assert.equal((await file.readFile()).toString(), 'inside');
      await file.close();
      const made = await openInside(folders, 'a/made', O_WRONLY | O_CREAT | O_TRUNC);
      await made.writeFile('new');
      await made.close();
      assert.equal(await readFile(join(root, 'a/made'), 'utf8'), 'new');
      for (const path of ['stolen', 'up/secret', 'dangling', '.'])
        await assert.rejects(openInside(folders, path, O_WRONLY | O_CREAT), isForbidden, path);
      await assert.rejects(openInside(folders, 'none/x', O_RDONLY), { code: 'ENOENT' });
    });
    assert.equal(await readFile(join(base, 'secret'), 'utf8'), 'outside');
  });

  it('enter nothing that has become a link after they were followed', async () => {
    await insideWorkspace(root, async (folders) => {
      const rel = followInside(folders, '/workspace/later/file');
      await mkdir(join(root, 'later'));
      await writeFile(join(root, 'later/file'), 'inside');
      assert.equal(await readFile(folders.entry(rel), 'utf8'), 'inside');
    });
    await insideWorkspace(root, async (folders) => {
      const rel = followInside(folders, '/workspace/later/secret');
      await rm(join(root, 'later'), { recursive: true });
      await symlink(base, join(root, 'later'));
      await assert.rejects(async () => readFile(folders.entry(rel)), { code: 'ENOENT' });
      folders.close(); // and the same for who has nothing open yet
      assert.throws(() => folders.entry(rel), { code: 'ENOTDIR' });
      await rm(join(root, 'later'));
    });
  });
});
