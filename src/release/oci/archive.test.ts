import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { it } from 'node:test';
import { gunzipSync, gzipSync } from 'node:zlib';
import { KilnError } from '../../domain/errors.ts';
import { MEDIA_TYPES } from '../../domain/image.ts';
import { type Importing, importArchive } from './archive.ts';
import { exportOciLayout, openImage } from './image.ts';
import { type Item, imageOf, type Place, place, readTar, sha256, tarOf } from './layers.fixtures.ts';
import { hasBlob } from './store.ts';

async function bring(at: Place, archive: Buffer | Readable, more: Partial<Importing> = {}) {
  const stream = Buffer.isBuffer(archive) ? Readable.from([archive]) : archive;
  try {
    return await importArchive({
      ...{ objects: at.objects, archive: stream, tmp_dir: at.tmp_dir, name: 'in' },
      ...{ max_bytes: 1e6, normalise: null, architecture: 'amd64', ...more },
    });
  } finally {
    assert.deepEqual(await readdir(at.tmp_dir), [], 'nothing is left');
  }
}

const json = (name: string, value: unknown): Item => ({ name, content: JSON.stringify(value) });
const blob = (bytes: Buffer): Item => ({
  name: `blobs/sha256/${sha256(bytes).slice(7)}`,
  content: bytes as never, // tar-stream takes both
});
const refused = (pattern: RegExp) => (error: unknown) =>
  error instanceof KilnError && pattern.test(error.message);

/** What a build at some moment would have written. */
async function layout(minute: number, o: { platforms?: string[]; attested?: boolean } = {}): Promise<Item[]> {
  const mtime = new Date(1_700_000_000_000 + minute * 60_000);
  const base = await tarOf([{ name: 'bin/sh', content: 'sh', mode: 0o755 }]);
  const app = await tarOf([
    { name: 'app/', mtime },
    { name: 'app/main', content: 'main', mtime, uname: 'someone' },
  ]);
  const items: Item[] = [];
  const put = (mediaType: string, bytes: Buffer) => {
    items.push(blob(bytes));
    return { mediaType, digest: sha256(bytes), size: bytes.length };
  };
  const layers = [base, app].map((bytes) => put(MEDIA_TYPES.layer_gzip, gzipSync(bytes)));
  const manifests = (o.platforms ?? ['amd64']).map((architecture) => {
    const config = put(
      MEDIA_TYPES.config,
      Buffer.from(
        JSON.stringify({
          architecture,
          os: 'linux',
          created: mtime.toISOString(),
          config: { Cmd: ['/app/main'] },
          rootfs: { type: 'layers', diff_ids: [sha256(base), sha256(app)] },
          history: [
            { created: '1999-01-01T00:00:00Z', created_by: 'base' },
            { created: mtime.toISOString(), created_by: 'COPY' },
          ],
        }),
      ),
    );
    const manifest = { schemaVersion: 2, mediaType: MEDIA_TYPES.manifest, config, layers };
    return {
      ...put(MEDIA_TYPES.manifest, Buffer.from(JSON.stringify(manifest))),
      platform: { architecture, os: 'linux' },
    };
  });
  const attestation = {
    ...manifests[0]!,
    digest: sha256(Buffer.from('none')),
    platform: { architecture: 'unknown', os: 'unknown' },
  };
  const inner = { schemaVersion: 2, manifests: o.attested ? [...manifests, attestation] : manifests };
  const index = o.attested
    ? { schemaVersion: 2, manifests: [put(MEDIA_TYPES.index, Buffer.from(JSON.stringify(inner)))] }
    : inner;
  return [json('oci-layout', { imageLayoutVersion: '1.0.0' }), ...items.reverse(), json('index.json', index)];
}

const NORMAL = { epoch_s: 1_650_000_000, keep: 1 };

it('takes an OCI layout as it is, digest included', async () => {
  await using at = await place();
  await using there = await place();
  const image = await imageOf(there.objects, [[{ name: 'a', content: 'a' }], [{ name: 'a', content: 'a' }]]);
  const opened = await openImage(there.objects, image.digest, { images_dir: there.images_dir });
  const brought = await bring(at, exportOciLayout(opened, 'x:1'));
  assert.equal(brought.digest, image.digest);
  for (const of of [image.manifest.config, ...image.manifest.layers])
    assert.ok(await hasBlob(at.objects, of));
  assert.equal(brought.blobs.length, 3, 'the layer that is there twice is one object');
});

it('makes builds that differ only in their times one image', async () => {
  await using at = await place();
  const first = await bring(at, await tarOf(await layout(1)), { normalise: NORMAL });
  const second = await bring(at, await tarOf(await layout(2)), { normalise: NORMAL });
  assert.equal(second.digest, first.digest);
  assert.notEqual(
    (await bring(at, await tarOf(await layout(1)))).digest,
    (await bring(at, await tarOf(await layout(2)))).digest,
    'they do differ',
  );
  const [base, app] = first.manifest.layers;
  const read = async (digest: string) =>
    gunzipSync(await buffer(await at.objects.get(`blobs/sha256/${digest.slice(7)}`)));
  assert.equal((await readTar(await read(base!.digest))).get('bin/sh')?.mtime_s, 1_600_000_000);
  const files = await readTar(await read(app!.digest));
  assert.deepEqual(
    [files.get('app/')?.mtime_s, files.get('app/main')?.mtime_s],
    [1_650_000_000, 1_650_000_000],
  );
  assert.equal(files.get('app/main')?.content, 'main');
  assert.equal(first.config.rootfs.diff_ids[1], sha256(await read(app!.digest)));
  assert.equal(first.config.created, '2022-04-15T05:20:00Z');
  assert.deepEqual(
    first.config.history?.map(({ created }) => created),
    ['1999-01-01T00:00:00Z', '2022-04-15T05:20:00Z'],
  );
  assert.deepEqual(first.config.config?.Cmd, ['/app/main']);
});

it('keeps the layers that the caller knows, by number or by diff_id', async () => {
  await using at = await place();
  const archive = await tarOf(await layout(1));
  const as_is = await bring(at, archive);
  const by_number = await bring(at, archive, { normalise: NORMAL });
  const keep = new Set([as_is.config.rootfs.diff_ids[0]!]);
  const by_id = await bring(at, archive, { normalise: { ...NORMAL, keep } });
  assert.equal(by_id.digest, by_number.digest);
  assert.equal(by_id.manifest.layers[0]!.digest, as_is.manifest.layers[0]!.digest);
  assert.notEqual(by_id.manifest.layers[1]!.digest, as_is.manifest.layers[1]!.digest);
});

it('finds the image of this machine among several and beside attestations', async () => {
  await using at = await place();
  const archive = await tarOf(await layout(1, { platforms: ['arm64', 'amd64'], attested: true }));
  assert.equal((await bring(at, archive)).config.architecture, 'amd64');
  assert.equal((await bring(at, archive, { architecture: 'arm64' })).config.architecture, 'arm64');
  await assert.rejects(bring(at, archive, { architecture: 's390x' }), refused(/not made for linux\/s390x/));
});

async function dockerSave(more: Item[] = []): Promise<Item[]> {
  const layer = await tarOf([{ name: 'a', content: 'a' }]);
  const config = {
    ...{ architecture: 'amd64', os: 'linux', docker_version: '20.10', created: '2024-01-01T00:00:00Z' },
    ...{
      config: { Cmd: ['a'], Image: 'sha256:x' },
      rootfs: { type: 'layers', diff_ids: [sha256(layer), sha256(layer)] },
    },
  };
  return [
    { name: 'one/layer.tar', content: layer as never },
    { name: 'two/layer.tar', type: 'symlink', linkname: '../one/layer.tar' },
    json('config.json', config),
    json('manifest.json', [
      { Config: 'config.json', RepoTags: null, Layers: ['one/layer.tar', 'two/layer.tar'] },
    ]),
    ...more,
  ];
}

it('takes docker save, links between layers included; the image id stays', async () => {
  await using at = await place();
  const items = await dockerSave();
  const brought = await bring(at, await tarOf(items));
  const config = items.find(({ name }) => name === 'config.json')!.content!;
  assert.equal(brought.manifest.config.digest, sha256(Buffer.from(config)));
  const [first, second] = brought.manifest.layers;
  assert.equal(first!.mediaType, MEDIA_TYPES.layer_gzip);
  assert.equal(first!.digest, second!.digest);
  const image = await openImage(at.objects, brought.digest, { images_dir: at.images_dir });
  assert.deepEqual((await bring(at, image.dockerArchive())).digest, brought.digest, 'and back');
});

it('refuses archives that lie, and stores no image of them', async () => {
  await using at = await place();
  const good = await layout(1);
  const changed = (change: (item: Item) => Item) => tarOf(good.map(change));
  const blobs = good.filter(({ name }) => name.startsWith('blobs/'));
  for (const { name } of blobs) {
    const other = await changed((item) => (item.name === name ? { ...item, content: 'other' } : item));
    await assert.rejects(bring(at, other), refused(/other bytes under its name/), name);
    const missing = await tarOf(good.filter((item) => item.name !== name));
    await assert.rejects(bring(at, missing), refused(/has no (blob|layer)/), name);
  }
  await assert.rejects(bring(at, await tarOf([{ name: 'x', content: 'x' }])), refused(/is no image/));
  await assert.rejects(bring(at, await tarOf(good), { max_bytes: 5000 }), KilnError);
  await assert.rejects(bring(at, Buffer.alloc(5000, 'x')), refused(/not a tar archive/));
  const outside = (Layers: string[]) => [json('manifest.json', [{ Config: 'config.json', Layers }])];
  const docker = (await dockerSave()).filter(({ name }) => name !== 'manifest.json');
  for (const evil of ['../../etc/passwd', '/etc/passwd'])
    await assert.rejects(bring(at, await tarOf([...docker, ...outside([evil, evil])])), KilnError);
  const link: Item = { name: 'evil', type: 'symlink', linkname: '/etc/passwd' };
  await assert.rejects(
    bring(at, await tarOf([...docker, link, ...outside(['evil', 'evil'])])),
    refused(/leaves/),
  );
  const two = [
    { Config: 'config.json', Layers: [] },
    { Config: 'config.json', Layers: [] },
  ];
  await assert.rejects(bring(at, await tarOf([...docker, json('manifest.json', two)])), refused(/2 images/));
  for await (const { key, size_bytes } of at.objects.list('blobs/'))
    assert.ok(
      !(await buffer(await at.objects.get(key))).includes('schemaVersion'),
      `${key} of ${size_bytes}`,
    );
});

it('refuses a layer that is not what the configuration says', async () => {
  await using at = await place();
  const other = { name: 'one/layer.tar', content: (await tarOf([{ name: 'b', content: 'b' }])) as never };
  const lying = (await dockerSave()).map((item) => (item.name === other.name ? other : item));
  await assert.rejects(bring(at, await tarOf(lying)), refused(/but the configuration says/));
});
