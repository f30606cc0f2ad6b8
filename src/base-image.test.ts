import assert from 'node:assert/strict';
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { buffer } from 'node:stream/consumers';
import { test } from 'node:test';
import { pack } from 'tar-stream';
import { tempDir } from '../test/support/folders.ts';
import { openBaseImage } from './base-image.ts';
import type { BuilderImage } from './isolation/microvm/builder-image/image.ts';

test('what a start that was killed left half made is not in the way of the next', async () => {
  const dir = await tempDir('base-image');
  try {
    const tar = pack();
    tar.entry({ name: 'bin/sh' }, 'a shell');
    tar.finalize();
    const rootfs_tar = path.join(dir, 'rootfs.tar');
    await writeFile(rootfs_tar, await buffer(tar));
    const digest = 'f'.repeat(64);
    const half_made = path.join(dir, 'base', 'tmp', `${digest}.rootfs.tar.gz`);
    const half_stored = path.join(dir, 'base', 'objects', '.tmp', '1-2-3');
    for (const file of [half_made, half_stored]) {
      await mkdir(path.dirname(file), { recursive: true });
      await writeFile(file, 'half of it');
    }
    const image = await openBaseImage({
      dir: path.join(dir, 'base'),
      images_dir: path.join(dir, 'images'),
      wanted: null,
      builder: { digest, rootfs_tar, rootfs_squashfs: '' } as BuilderImage,
      host_env: {},
      say: () => undefined,
    });
    assert.match(image!.digest, /^sha256:/);
    for (const file of [half_made, half_stored]) assert.deepEqual(await readdir(path.dirname(file)), []);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
});
