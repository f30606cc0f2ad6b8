import assert from 'node:assert/strict';
import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { diskFiles } from '../build/files.ts';
import { insideWorkspace } from '../source/paths.ts';
import { workspaceFiles } from './workspace-files.ts';

async function folders(t: { after(undo: () => void): void }) {
  const dir = await mkdtemp(path.join(tmpdir(), 'kiln-workspace-files-'));
  t.after(() => rmSync(dir, { recursive: true }));
  for (const name of ['workspace/app', 'outside']) mkdirSync(path.join(dir, name), { recursive: true });
  writeFileSync(path.join(dir, 'workspace/app/package.json'), 'of the app');
  writeFileSync(path.join(dir, 'outside/package.json'), 'of the host');
  return { root: path.join(dir, 'workspace'), outside: path.join(dir, 'outside') };
}

test('a folder that becomes a link while a plan is made does not lead it out of the workspace', async (t) => {
  const { root, outside } = await folders(t);
  await insideWorkspace(root, async (opened) => {
    const files = workspaceFiles(opened);
    assert.equal(files.exists('app/package.json'), true);
    renameSync(path.join(root, 'app'), path.join(root, 'was-app'));
    symlinkSync(outside, path.join(root, 'app'));
    assert.notEqual(files.read('app/package.json'), 'of the host');
    assert.deepEqual(
      files.list('app/..').map(({ name, type }) => `${type} ${name}`),
      ['other app', 'dir was-app'],
    );
  });
});

test('apart from that it sees what is on the disk', async (t) => {
  const { root, outside } = await folders(t);
  mkdirSync(path.join(root, 'app/deep'));
  writeFileSync(path.join(root, 'app/deep/a.txt'), 'a');
  symlinkSync('app/deep', path.join(root, 'inside'));
  symlinkSync('inside/a.txt', path.join(root, 'a.txt'));
  symlinkSync(outside, path.join(root, 'out'));
  symlinkSync('nowhere', path.join(root, 'broken'));
  symlinkSync('loop', path.join(root, 'loop'));
  await insideWorkspace(root, async (opened) => {
    const [files, disk] = [workspaceFiles(opened), diskFiles(root)];
    for (const name of [
      '.',
      'app',
      'inside',
      'a.txt',
      'out',
      'broken',
      'loop',
      'inside/a.txt',
      'out/package.json',
      '../outside',
      'none',
      'app/package.json/x',
    ]) {
      assert.deepEqual(files.list(name), disk.list(name), `list ${name}`);
      assert.equal(files.read(name), disk.read(name), `read ${name}`);
      assert.equal(files.exists(name), disk.exists(name), `exists ${name}`);
    }
    assert.equal(files.read('a.txt'), 'a');
    assert.equal(files.read('out/package.json'), null);
  });
});
