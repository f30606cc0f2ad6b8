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
import { MemoryObjects, storeRelease } from './static-site.fixture.ts';
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
      await objects.put(key, Readable.from([stored]));
      const release = { object_key: key, sha256 };
      const { verify } = makeVerifier(objects);
      assert.equal(await verify(release), 'whole');
      assert.equal(await verify(release), 'whole');
      const file = objects.localPath(key)!;
      const damaged = Buffer.from(stored);
      damaged[damaged.length >> 1]! ^= 0xff;
      await writeFile(file, damaged);
      assert.equal(await verify(release), 'corrupt', 'the same size, other bytes');
      await truncate(file, stored.length >> 1);
      assert.equal(await verify(release), 'corrupt', 'cut in the middle');
      await rm(file);
      assert.equal(await verify(release), 'gone');
    });
});

test('a site: with an index that is gone, cut short, or says something else of the tar, it is not whole', async () => {
  const objects = new MemoryObjects();
  const large = Buffer.alloc(200_000, 'x');
  const contents = { 'index.html': 'hello', 'empty.txt': '', 'large.bin': large, 'z.txt': 'end' };
  const { object_key, index_key, sha256 } = await storeRelease(objects, contents);
  const release = { object_key, sha256, manifest: { index_key, files: 4 } };
  const { verify } = makeVerifier(objects);
  assert.equal(await verify(release), 'whole');
  const index = objects.objects.get(index_key)!;
  const { files } = JSON.parse(index.toString()) as {
    files: Record<string, { offset: number; size: number }>;
  };
  const { 'z.txt': last, ...fewer } = files;
  for (const [what, damaged] of [
    ['cut short', index.subarray(0, 40)],
    ['a file less', Buffer.from(JSON.stringify({ files: fewer }))],
    ['another place', withFiles({ ...files, 'z.txt': { ...last, offset: last!.offset + 1 } })],
    ['beyond the end', withFiles({ ...files, 'z.txt': { ...last, offset: 10_000_000 } })],
    ['another size', withFiles({ ...files, 'large.bin': { ...files['large.bin'], size: 10 } })],
  ] as const) {
    objects.objects.set(index_key, damaged);
    assert.equal(await verify(release), 'corrupt', what);
  }
  objects.objects.delete(index_key);
  assert.equal(await verify(release), 'gone');
});

function withFiles(files: object): Buffer {
  return Buffer.from(JSON.stringify({ files }));
}

test('an image: whole with all its blobs, then each of them damaged, then gone', async () => {
  await using at = await place();
  const image = await imageOf(at.objects, [[{ name: 'a', content: 'a' }], [{ name: 'b', content: 'b' }]]);
  const object_key = blobKey(image.digest);
  const release = { object_key, sha256: image.digest.slice(7) };
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
