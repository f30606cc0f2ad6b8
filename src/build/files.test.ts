import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { cleanPath, diskFiles, joinPath, memoryFiles } from './files.ts';

const work = mkdtempSync(join(tmpdir(), 'kiln-files-'));
after(() => rmSync(work, { recursive: true, force: true }));
const root = join(work, 'source');
mkdirSync(join(root, 'inner'), { recursive: true });
writeFileSync(join(work, 'secret.txt'), 'secret');
writeFileSync(join(root, 'a.txt'), '\uFEFFalpha');
writeFileSync(join(root, 'inner', 'b.txt'), 'beta');

test('paths that leave the root are no paths', () => {
  assert.equal(cleanPath('a/./b//c/'), 'a/b/c');
  assert.equal(cleanPath('a/../b'), 'b');
  assert.equal(cleanPath('./'), '.');
  assert.equal(joinPath('apps/web', '../api'), 'apps/api');
  for (const path of ['../a', 'a/../../b', '/etc', 'a\0b', 'a/'.repeat(100)])
    assert.equal(cleanPath(path), null, path);
});

test('a folder on disk is read without its byte-order marks', () => {
  const files = diskFiles(root);
  assert.equal(files.read('a.txt'), 'alpha');
  assert.equal(files.read('a.txt', 2), 'al');
  assert.equal(files.read('missing'), null);
  assert.equal(files.read('inner'), null);
  assert.deepEqual(files.list('inner'), [{ name: 'b.txt', type: 'file' }]);
  assert.deepEqual(files.list('a.txt'), []);
  assert.ok(files.exists('inner') && files.exists('inner/b.txt') && !files.exists('inner/c.txt'));
});

test('links are followed inside the root only, and never in a circle', () => {
  symlinkSync('../secret.txt', join(root, 'out'));
  symlinkSync('/etc', join(root, 'etc'));
  symlinkSync('inner/b.txt', join(root, 'in'));
  symlinkSync('.', join(root, 'circle'));
  symlinkSync('loop', join(root, 'loop'));
  const files = diskFiles(root);
  assert.equal(files.read('out'), null);
  assert.equal(files.read('etc/passwd'), null);
  assert.equal(files.exists('etc'), false);
  assert.equal(files.exists('loop'), false);
  assert.deepEqual(files.list('etc'), []);
  assert.equal(files.read('in'), 'beta');
  const types = Object.fromEntries(files.list('.').map(({ name, type }) => [name, type]));
  assert.deepEqual(types, {
    'a.txt': 'file',
    inner: 'dir',
    out: 'other',
    etc: 'other',
    in: 'file',
    circle: 'other',
    loop: 'other',
  });
});

test('a named pipe does not hold the reader up', () => {
  execFileSync('mkfifo', [join(root, 'pipe')]);
  const files = diskFiles(root);
  assert.equal(files.read('pipe'), null);
  rmSync(join(root, 'pipe'));
});

test('files in memory answer like files on disk', () => {
  const files = memoryFiles({ 'a.txt': 'alpha', 'inner/b.txt': 'beta' });
  assert.deepEqual(files.list('.'), [
    { name: 'a.txt', type: 'file' },
    { name: 'inner', type: 'dir' },
  ]);
  assert.equal(files.read('./inner//b.txt', 3), 'bet');
  assert.equal(files.read('inner'), null);
  assert.ok(files.exists('inner') && files.exists('.') && !files.exists('../x'));
});

test('a path deeper than planning looks is not there, in memory as on disk', () => {
  const deep = `${Array(40).fill('d').join('/')}/x.html`;
  const files = memoryFiles({ 'index.html': '', [deep]: 'deep' });
  assert.equal(files.read(deep), null);
  assert.ok(!files.exists(deep) && files.exists('index.html'));
});
