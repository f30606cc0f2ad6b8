import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';
import { after, before, describe, test } from 'node:test';
import { zstdCompressSync } from 'node:zlib';
import { fileObjectStore } from '../store/objects/files.ts';
import type { ObjectStore } from '../store/objects/port.ts';
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
