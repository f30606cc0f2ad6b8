import assert from 'node:assert/strict';
import { chmod, mkdir, readdir, readFile, symlink, utimes, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { it } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { ArtifactTooLarge } from '../../source/pack.ts';
import { fileObjectStore } from '../../store/objects/files.ts';
import { makeVerifier } from '../verify.ts';
import { type Assembly, assembleImage, imageFromRootfsTar } from './assemble.ts';
import { openImage } from './image.ts';
import { imageOf, type Place, place, readTar, sha256, tarOf } from './layers.fixtures.ts';
import { blobKey, hasBlob } from './store.ts';

async function app(at: Place, name: string): Promise<string> {
  const root = path.join(at.dir, name);
  await mkdir(path.join(root, 'bin'), { recursive: true });
  await writeFile(path.join(root, 'server.js'), 'serve()');
  await writeFile(path.join(root, 'bin/run'), '#!/bin/sh\n');
  await chmod(path.join(root, 'bin/run'), 0o755);
  await symlink('../server.js', path.join(root, 'bin/link'));
  await mkdir(path.join(root, '.git'));
  await writeFile(path.join(root, '.git/config'), 'x');
  return root;
}

const RUN: Assembly['run'] = {
  command: 'exec node server.js',
  cwd: '/workspace',
  env: { ZEBRA: '1', LANG: 'C.UTF-8', APP: 'x=y' },
  port: 3000,
  user: null,
  labels: { 'org.opencontainers.image.title': 'demo' },
};

async function assembly(at: Place, root: string, more: Partial<Assembly> = {}): Promise<Assembly> {
  const base = await imageOf(
    at.objects,
    [[{ name: 'bin/' }, { name: 'bin/sh', content: 'sh', mode: 0o755 }]],
    {
      config: {
        Env: ['PATH=/bin', 'LANG=C'],
        Entrypoint: ['/bin/base'],
        Labels: { of: 'base' },
        User: 'app',
      },
    },
  );
  return {
    objects: at.objects,
    base: await openImage(at.objects, base.digest, { images_dir: at.images_dir }),
    root,
    prefix: 'workspace/',
    exclude: (rel) => rel === '.git',
    run: RUN,
    tmp_dir: at.tmp_dir,
    name: 'one',
    max_bytes: 1e6,
    ...more,
  };
}

it('puts one layer with the app on the base, and says how it is run', async () => {
  await using at = await place();
  const of = await assembly(at, await app(at, 'app'), {
    extra: [{ path: 'kiln/release.json', content: Buffer.from('{}') }],
  });
  const made = await assembleImage(of);
  const image = await openImage(at.objects, made.digest, { images_dir: at.images_dir });
  assert.deepEqual(image.config.config, {
    User: 'app',
    ExposedPorts: { '3000/tcp': {} },
    Env: ['PATH=/bin', 'LANG=C.UTF-8', 'APP=x=y', 'ZEBRA=1'],
    Cmd: ['/bin/sh', '-c', 'exec node server.js'],
    WorkingDir: '/workspace',
    Labels: { of: 'base', 'org.opencontainers.image.title': 'demo' },
  });
  assert.deepEqual(image.manifest.layers.slice(0, 1), of.base.manifest.layers);
  const layer = gunzipSync(await buffer(await image.blob(image.manifest.layers[1]!.digest)));
  assert.equal(sha256(layer), image.config.rootfs.diff_ids[1]);
  const files = await readTar(layer);
  assert.equal(files.get('workspace/server.js')?.content, 'serve()');
  assert.equal(files.get('workspace/bin/run')?.mode, 0o755);
  assert.equal(files.get('workspace/bin/link')?.link, '../server.js');
  assert.equal(files.get('kiln/release.json')?.content, '{}');
  assert.ok(![...files.keys()].some((name) => name.includes('.git')));
  assert.equal(made.blobs.length, 4);
  for (const { key, size_bytes } of made.blobs)
    assert.equal((await at.objects.head(key))?.size_bytes, size_bytes);
  assert.deepEqual(await readdir(at.tmp_dir), []);
});

it('gives the same digest for the same content, whatever the clock, the folder and the order of the settings', async () => {
  await using at = await place();
  const first = await assembleImage(await assembly(at, await app(at, 'one')));
  const root = await app(at, 'two');
  await utimes(path.join(root, 'server.js'), 1, 1);
  await chmod(path.join(root, 'server.js'), 0o600);
  const env = Object.fromEntries(Object.entries(RUN.env).reverse());
  const second = await assembleImage(await assembly(at, root, { name: 'two', run: { ...RUN, env } }));
  assert.equal(second.digest, first.digest);
  await writeFile(path.join(root, 'server.js'), 'serve(1)');
  const third = await assembleImage(await assembly(at, root, { name: 'three' }));
  assert.notEqual(third.digest, first.digest);
});

it('brings the layers of a base that is kept elsewhere', async () => {
  await using at = await place();
  await using there = await place();
  const of = await assembly(there, await app(at, 'app'));
  const made = await assembleImage({ ...of, objects: at.objects, tmp_dir: at.tmp_dir });
  const { manifest } = await openImage(at.objects, made.digest, { images_dir: at.images_dir });
  for (const blob of [manifest.config, ...manifest.layers]) assert.ok(await hasBlob(at.objects, blob));
});

it('stops at the size limit and leaves nothing', async () => {
  await using at = await place();
  const of = await assembly(at, await app(at, 'app'));
  const objects = fileObjectStore(path.join(at.dir, 'empty'));
  await assert.rejects(assembleImage({ ...of, objects, max_bytes: 1024 }), ArtifactTooLarge);
  assert.deepEqual(await readdir(at.tmp_dir), []);
  for await (const { key } of objects.list('')) assert.fail(`${key} was stored`);
});

it('makes a base of a root file system, the same for the same tar', async () => {
  await using at = await place();
  const tar = await tarOf([
    { name: './' },
    { name: './etc/' },
    { name: './etc/hosts', content: 'h', uid: 3 },
  ]);
  const make = (name: string) =>
    imageFromRootfsTar({
      objects: at.objects,
      tar: Readable.from([tar]),
      config: { Env: ['PATH=/bin'] },
      created_by: 'mmdebstrap',
      tmp_dir: at.tmp_dir,
      name,
      max_bytes: 1e6,
    });
  const made = await make('a');
  assert.equal((await make('b')).digest, made.digest);
  const image = await openImage(at.objects, made.digest, { images_dir: at.images_dir });
  const layer = gunzipSync(await buffer(await image.blob(image.manifest.layers[0]!.digest)));
  assert.equal(sha256(layer), image.config.rootfs.diff_ids[0]);
  assert.equal((await readTar(layer)).get('./etc/hosts')?.uid, 3);
  assert.deepEqual(await readdir(at.tmp_dir), []);
  await assert.rejects(
    imageFromRootfsTar({
      objects: at.objects,
      tar: Readable.from([tar]),
      config: {},
      created_by: '',
      tmp_dir: at.tmp_dir,
      name: 'c',
      max_bytes: 1000,
    }),
    /more than 1000 bytes/,
  );
  assert.deepEqual(await readdir(at.tmp_dir), []);
});

it('brings a damaged layer of the base once more when it is told to read them', async () => {
  await using of_base = await place();
  await using at = await place();
  const { base } = await assembly(of_base, at.dir);
  const of = await assembly(at, await app(at, 'app'), { base });
  const made = await assembleImage(of);
  const { verify } = makeVerifier(at.objects);
  const release = { object_key: made.blobs[0]!.key, sha256: made.digest.slice('sha256:'.length) };
  assert.equal(await verify(release), 'whole');
  const file = at.objects.localPath(blobKey(base.manifest.layers[0]!.digest))!;
  const bytes = await readFile(file);
  await writeFile(file, Buffer.from(bytes).fill(0, bytes.length >> 1));
  assert.equal((await assembleImage({ ...of, name: 'two' })).digest, made.digest);
  assert.equal(await verify(release), 'corrupt', 'it has its size, and was not read');
  assert.equal((await assembleImage({ ...of, name: 'three', recheck: true })).digest, made.digest);
  assert.equal(await verify(release), 'whole');
});
