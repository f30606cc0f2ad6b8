import assert from 'node:assert/strict';
import { createWriteStream } from 'node:fs';
import { lstat, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { afterEach, beforeEach, test } from 'node:test';
import { type Header, pack } from 'tar-stream';
import { extractTar } from '../../source/extract.ts';
import { takeOutput } from './exchange.ts';

let dir: string;
let workspace_dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'kiln-exchange-'));
  workspace_dir = join(dir, 'workspace');
  await mkdir(join(workspace_dir, 'old'), { recursive: true });
  await mkdir(join(dir, 'vm'));
  await writeFile(join(workspace_dir, 'kept'), 'before');
});
afterEach(() => rm(dir, { recursive: true, force: true }));

/** What a guest that is lost might write on the output drive: a tar, then whatever was there. */
async function take(
  entries: (Partial<Header> & { name: string } & { content?: string })[],
  max_bytes = 1 << 20,
): Promise<void> {
  const output_path = join(dir, 'vm', 'output.img');
  const tar = pack();
  for (const { content = '', ...header } of entries) tar.entry(header, content);
  tar.finalize();
  await pipeline(tar, createWriteStream(output_path));
  const { size: bytes } = await stat(output_path);
  await writeFile(output_path, Buffer.alloc(4096, 'x'), { flag: 'a' });
  await takeOutput({
    unpack: extractTar,
    output_path,
    bytes,
    max_bytes,
    dir: join(dir, 'vm'),
    workspace_dir,
  });
}

test('the result takes the place of the workspace, removed files included', async () => {
  await take([
    { name: './made', content: 'after' },
    { name: './sub/', type: 'directory' },
  ]);
  assert.deepEqual((await readdir(workspace_dir)).sort(), ['made', 'sub']);
  assert.equal(await readFile(join(workspace_dir, 'made'), 'utf8'), 'after');
});

for (const [title, entry] of [
  ['a way out', { name: '../evil', content: 'x' }],
  ['a way out further down', { name: 'a/../../evil', content: 'x' }],
  ['an absolute name', { name: '/tmp/kiln-evil', content: 'x' }],
  ['a hard link to a file outside', { name: 'hard', type: 'link', linkname: '/etc/passwd' }],
] as const)
  test(`refused: ${title}; the workspace stays as it was`, async () => {
    await assert.rejects(take([{ name: 'good', content: 'x' }, entry]));
    assert.deepEqual((await readdir(workspace_dir)).sort(), ['kept', 'old']);
    assert.deepEqual((await readdir(dir)).sort(), ['vm', 'workspace']);
  });

test('refused: more than the limit', async () => {
  await assert.rejects(take([{ name: 'big', content: 'x'.repeat(5000) }], 4096));
  assert.deepEqual((await readdir(workspace_dir)).sort(), ['kept', 'old']);
});

test('neutralised: setuid, device nodes, a link that later names go through', async () => {
  await take([
    { name: 'suid', mode: 0o6755, content: 'x' },
    { name: 'disk', type: 'block-device', devmajor: 8, devminor: 0 },
    { name: 'pipe', type: 'fifo' },
    { name: 'etc', type: 'symlink', linkname: '/etc' },
  ]);
  assert.deepEqual((await readdir(workspace_dir)).sort(), ['etc', 'suid']);
  assert.equal((await stat(join(workspace_dir, 'suid'))).mode & 0o7777, 0o755);
  assert.ok((await lstat(join(workspace_dir, 'etc'))).isSymbolicLink());
});
