import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { it } from 'node:test';
import { KilnError } from '../../domain/errors.ts';
import { MEDIA_TYPES } from '../../domain/image.ts';
import { imageOf, place, sha256 } from './layers.fixtures.ts';
import { chooseManifest, parseConfig, parseIndex, parseManifest } from './manifest.ts';
import {
  BlobMismatch,
  blobKey,
  getBlob,
  getDocument,
  hasBlob,
  putBlob,
  putBlobFile,
  readImage,
} from './store.ts';

const HELLO = Buffer.from('hello');
const DIGEST = sha256(HELLO);
const isInvalid = (error: unknown) => error instanceof KilnError && error.code === 'INVALID_ARCHIVE';

it('stores a blob under its digest, and only when the bytes are right', async () => {
  await using at = await place();
  const bad: [Buffer, number][] = [
    [Buffer.from('hellO'), 5],
    [Buffer.from('hell'), 5],
    [Buffer.from('hello!'), 5],
  ];
  for (const [bytes, size] of bad) {
    await assert.rejects(putBlob(at.objects, Readable.from([bytes]), { digest: DIGEST, size }), BlobMismatch);
    assert.equal(await hasBlob(at.objects, { digest: DIGEST, size }), false);
  }
  assert.deepEqual(await putBlob(at.objects, Readable.from([HELLO]), { digest: DIGEST, size: 5 }), {
    digest: DIGEST,
    size_bytes: 5,
  });
  const again = Readable.from([HELLO]);
  await putBlob(at.objects, again, { digest: DIGEST, size: 5 });
  assert.ok(again.destroyed, 'a body that nobody needs is let go');
  assert.equal((await buffer(await getBlob(at.objects, { digest: DIGEST, size: 5 }))).toString(), 'hello');
});

it('moves a file in under its digest', async () => {
  await using at = await place();
  const file = path.join(at.tmp_dir, 'x');
  await writeFile(file, HELLO);
  assert.deepEqual(await putBlobFile(at.objects, file), { digest: DIGEST, size_bytes: 5 });
  assert.ok(await hasBlob(at.objects, { digest: DIGEST, size: 5 }));
});

it('notices on reading that a stored blob was changed', async () => {
  await using at = await place();
  await putBlob(at.objects, Readable.from([HELLO]), { digest: DIGEST, size: 5 });
  await writeFile(at.objects.localPath(blobKey(DIGEST))!, 'hellO');
  await assert.rejects(
    async () => buffer(await getBlob(at.objects, { digest: DIGEST, size: 5 })),
    BlobMismatch,
  );
  await assert.rejects(getDocument(at.objects, DIGEST), BlobMismatch);
});

it('puts the right bytes in the place of a blob that was cut short', async () => {
  await using at = await place();
  const file = path.join(at.tmp_dir, 'x');
  const put = [
    () => putBlob(at.objects, Readable.from([HELLO]), { digest: DIGEST, size: 5 }),
    () => writeFile(file, HELLO).then(() => putBlobFile(at.objects, file)),
  ];
  for (const again of put) {
    await again();
    await writeFile(at.objects.localPath(blobKey(DIGEST))!, 'hel');
    assert.deepEqual(await again(), { digest: DIGEST, size_bytes: 5 });
    assert.equal((await getDocument(at.objects, DIGEST)).toString(), 'hello');
  }
  const lie = putBlob(at.objects, Readable.from([HELLO]), { digest: DIGEST, size: 4 });
  await assert.rejects(lie, BlobMismatch);
  assert.equal(
    (await getDocument(at.objects, DIGEST)).toString(),
    'hello',
    'a lie about the size removes nothing',
  );
});

it('reads back the image it put', async () => {
  await using at = await place();
  const image = await imageOf(at.objects, [[{ name: 'a', content: 'a' }], [{ name: 'b', content: 'b' }]]);
  const read = await readImage(at.objects, image.digest);
  assert.deepEqual(read.manifest, image.manifest);
  assert.deepEqual(read.config.rootfs, image.config.rootfs);
});

const json = (value: unknown) => Buffer.from(JSON.stringify(value));
const blob = { mediaType: MEDIA_TYPES.config, digest: DIGEST, size: 5 };
const layer = { mediaType: MEDIA_TYPES.layer_gzip, digest: DIGEST, size: 5 };
const good = { schemaVersion: 2, mediaType: MEDIA_TYPES.manifest, config: blob, layers: [layer] };

it('refuses manifests that are not plain container images, and says why', () => {
  parseManifest(json(good));
  const wrong: [unknown, RegExp][] = [
    [{ ...good, schemaVersion: 1 }, /schemaVersion/],
    [{ ...good, mediaType: MEDIA_TYPES.index }, /says it is/],
    [
      { ...good, config: { ...blob, mediaType: 'application/vnd.helm.config.v1+json' } },
      /not of a container/,
    ],
    [{ ...good, layers: [{ ...layer, digest: 'sha256:../../etc/passwd' }] }, /layers\.0\.digest/],
    [{ ...good, layers: [{ ...layer, digest: `sha512:${'a'.repeat(128)}` }] }, /layers\.0\.digest/],
    [{ ...good, layers: [{ ...layer, size: -1 }] }, /layers\.0\.size/],
    [{ ...good, layers: [{ ...layer, size: 2 ** 60 }] }, /layers\.0\.size/],
    [{ ...good, layers: [{ ...layer, mediaType: 'application/x-foreign' }] }, /not supported/],
    [{ ...good, layers: Array.from({ length: 501 }, () => layer) }, /layers/],
    [[], /manifest/],
  ];
  for (const [value, message] of wrong) assert.throws(() => parseManifest(json(value)), message);
  assert.throws(() => parseManifest(Buffer.from('{"schema')), isInvalid);
  assert.throws(() => parseManifest(Buffer.from([0x7b, 0xff, 0x7d])), isInvalid);
  assert.throws(() => parseManifest(Buffer.alloc(5 * 1024 * 1024, ' ')), isInvalid);
});

it('reads a configuration as Go writes it, and holds it to the manifest', () => {
  const config = {
    architecture: 'amd64',
    os: 'linux',
    config: { Cmd: ['sh'], Entrypoint: null, Env: null, ExposedPorts: { '80/tcp': {} }, OnBuild: null },
    rootfs: { type: 'layers', diff_ids: [DIGEST] },
    history: null,
  };
  const parsed = parseConfig(json(config), good);
  assert.deepEqual(parsed.config?.Cmd, ['sh']);
  assert.equal(parsed.config?.Env, undefined);
  assert.throws(() => parseConfig(json(config), { layers: [] }), /has 0 layers/);
  assert.throws(() => parseConfig(json({ ...config, config: { Cmd: 'sh' } }), good), /config\.Cmd/);
});

it('picks the image for this machine out of several', () => {
  const entry = (architecture: string | null, digest: string, os = 'linux') => ({
    mediaType: MEDIA_TYPES.manifest,
    digest,
    size: 5,
    ...(architecture ? { platform: { architecture, os } } : {}),
  });
  const other = `sha256:${'1'.repeat(64)}`;
  const index = (...manifests: unknown[]) => parseIndex(json({ schemaVersion: 2, manifests }));
  const both = index(entry('arm64', other), entry('amd64', DIGEST), entry('unknown', other, 'unknown'));
  assert.equal(chooseManifest(both, 'amd64').digest, DIGEST);
  assert.equal(chooseManifest(both, 'arm64').digest, other);
  assert.equal(chooseManifest(index(entry(null, DIGEST)), 'amd64').digest, DIGEST);
  assert.throws(() => chooseManifest(both, 'riscv64'), /only for linux\/arm64, linux\/amd64/);
});
