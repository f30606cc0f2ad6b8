import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';
import { after, before, describe, test } from 'node:test';
import { zstdCompressSync } from 'node:zlib';
import { fileObjectStore } from '../store/objects/files.ts';
import type { ObjectStore } from '../store/objects/port.ts';
import { imageOf, place } from './oci/layers.fixtures.ts';
import { blobKey } from './oci/store.ts';
import { makeVerifier } from './verify.ts';

describe('verifying a stored artifact', () => {
  let dir: string;
  let objects: ObjectStore;
  const content = Buffer.from('a release '.repeat(50_000));
  const sha256 = createHash('sha256').update(content).digest('hex');
  before(async () => {
    dir = await mkdtemp(path.join(os.tmpdir(), 'kiln-verify-'));
    objects = fileObjectStore(dir);
  });
  after(() => rm(dir, { recursive: true, force: true }));

  for (const kind of ['tar', 'tar.zst'] as const)
    test(`${kind}: whole, then damaged in place, then cut short, then gone`, async () => {
      const key = `releases/${sha256}.${kind}`;
      const stored = kind === 'tar' ? content : zstdCompressSync(content);
      const { size_bytes } = await objects.put(key, Readable.from([stored]));
      const release = { object_key: key, sha256, size_bytes };
      const { verify } = makeVerifier(objects);
      assert.equal(await verify(release), 'whole');
      assert.equal(await verify(release), 'whole');
      const file = objects.localPath(key)!;
      const damaged = Buffer.from(stored);
      damaged[damaged.length >> 1]! ^= 0xff;
      await writeFile(file, damaged);
      assert.equal(await verify(release), 'corrupt', 'the same size, other bytes');
      await truncate(file, stored.length >> 1);
      assert.equal(await verify(release), 'corrupt');
      assert.equal(
        await verify({ ...release, size_bytes: stored.length >> 1 }),
        'corrupt',
        'cut in the middle of a frame',
      );
      await rm(file);
      assert.equal(await verify(release), 'gone');
    });
});

test('an image: whole with all its blobs, then each of them damaged, then gone', async () => {
  await using at = await place();
  const image = await imageOf(at.objects, [[{ name: 'a', content: 'a' }], [{ name: 'b', content: 'b' }]]);
  const object_key = blobKey(image.digest);
  const release = { object_key, sha256: image.digest.slice(7), size_bytes: 12_345 };
  const { verify } = makeVerifier(at.objects);
  assert.equal(await verify(release), 'whole');
  for (const { digest } of [image.manifest.config, ...image.manifest.layers, { digest: image.digest }]) {
    const file = at.objects.localPath(blobKey(digest))!;
    const bytes = await readFile(file);
    await writeFile(file, bytes.fill(0x20, 0, 1));
    assert.equal(await verify(release), 'corrupt', digest);
    await rm(file);
    assert.equal(await verify(release), 'gone', digest);
    await imageOf(at.objects, [[{ name: 'a', content: 'a' }], [{ name: 'b', content: 'b' }]]);
    assert.equal(await verify(release), 'whole', 'stored again');
  }
});
