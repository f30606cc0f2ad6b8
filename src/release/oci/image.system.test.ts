/** What Kiln writes, read by the tools everybody else uses: skopeo, umoci, tar2sqfs and unsquashfs. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { lstat, mkdir, readdir, readFile, readlink, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { it } from 'node:test';
import { promisify } from 'node:util';
import fc from 'fast-check';
import { assembleImage } from './assemble.ts';
import { exportOciLayout, imageFileNames, openImage } from './image.ts';
import { type Item, imageOf, type Place, place } from './layers.fixtures.ts';
import { sweepRootFiles } from './squashfs.ts';
import { blobKey, digestOfFile } from './store.ts';

const MAX_MS = 60_000;
const run = async (tool: string, ...args: string[]) =>
  (await promisify(execFile)(tool, args, { timeout: MAX_MS })).stdout;

async function opened(at: Place, layers: Item[][]) {
  const image = await imageOf(at.objects, layers, { coding: 'gzip' });
  return openImage(at.objects, image.digest, { images_dir: at.images_dir });
}

const BASE: Item[][] = [
  [
    { name: './', mode: 0o755 },
    { name: 'bin/' },
    { name: 'bin/sh', content: 'sh', mode: 0o755 },
    { name: 'bin/bash', type: 'link', linkname: 'bin/sh' },
    { name: 'lib', type: 'symlink', linkname: 'usr/lib' },
    { name: 'usr/' },
    { name: 'usr/lib/', uid: 3, gid: 4 },
    { name: 'etc/' },
    { name: 'etc/shadow', content: 'old', mode: 0o640 },
  ],
  [
    { name: 'lib/libc.so', content: 'libc' },
    { name: 'etc/.wh.shadow' },
    { name: 'bin/su', content: 's', mode: 0o4755 },
  ],
];

it('skopeo reads both archives, and copies them to the same image', { timeout: MAX_MS }, async () => {
  await using at = await place();
  const root = path.join(at.dir, 'app');
  await mkdir(root);
  await writeFile(path.join(root, 'server.js'), 'serve()');
  const made = await assembleImage({
    objects: at.objects,
    base: await opened(at, BASE),
    root,
    prefix: 'workspace/',
    run: {
      command: 'node server.js',
      cwd: '/workspace',
      env: { A: '1' },
      port: 80,
      user: '1000',
      labels: {},
    },
    tmp_dir: at.tmp_dir,
    name: 'app',
    max_bytes: 1e6,
  });
  const image = await openImage(at.objects, made.digest, { images_dir: at.images_dir });
  const oci = path.join(at.dir, 'oci.tar');
  const docker = path.join(at.dir, 'docker.tar');
  await pipeline(exportOciLayout(image, 'app:1'), createWriteStream(oci));
  await pipeline(image.dockerArchive(), createWriteStream(docker));
  const inspected = JSON.parse(await run('skopeo', 'inspect', `oci-archive:${oci}:app:1`));
  assert.equal(inspected.Digest, made.digest);
  assert.deepEqual(inspected.Env, ['PATH=/usr/bin:/bin', 'LANG=C', 'A=1']);
  const config = JSON.parse(await run('skopeo', 'inspect', '--config', `docker-archive:${docker}`));
  assert.deepEqual(config.config.Cmd, ['/bin/sh', '-c', 'node server.js']);
  assert.deepEqual(config.rootfs.diff_ids, made.config.rootfs.diff_ids);
  const from_docker = path.join(at.dir, 'from-docker');
  await run('skopeo', 'copy', `docker-archive:${docker}`, `oci:${from_docker}:x`);
  await run('umoci', 'unpack', '--rootless', '--image', `${from_docker}:x`, path.join(at.dir, 'bundle'));
  const unpacked = path.join(at.dir, 'bundle/rootfs');
  assert.equal(await readFile(path.join(unpacked, 'workspace/server.js'), 'utf8'), 'serve()');
  assert.equal(await readFile(path.join(unpacked, 'usr/lib/libc.so'), 'utf8'), 'libc');
});

it('makes one squashfs of an image, the same every time', { timeout: MAX_MS }, async () => {
  await using at = await place();
  const image = await opened(at, BASE);
  const paths = await Promise.all([image.squashfs(), image.squashfs(), image.squashfs()]);
  const file = paths[0]![0]!;
  assert.deepEqual(await readdir(at.images_dir), [path.basename(file)]);
  const before = await stat(file);
  assert.deepEqual(await image.squashfs(), [file]);
  assert.equal((await stat(file)).ino, before.ino, 'made once');
  const digest = await digestOfFile(file);
  const listing = await run('unsquashfs', '-lln', file);
  for (const line of [
    /^-rwsr-xr-x 0\/0 +1 .*squashfs-root\/bin\/su$/m,
    /^lrwxrwxrwx .*squashfs-root\/lib -> usr\/lib$/m,
    /^drwxr-xr-x 3\/4 .*squashfs-root\/usr\/lib$/m,
    /^-rw-r--r-- .*squashfs-root\/usr\/lib\/libc\.so$/m,
    / 2020-09-13 .*squashfs-root\/bin\/bash$/m,
  ])
    assert.match(listing, line);
  assert.doesNotMatch(listing, /shadow|\.wh\./);
  assert.equal(await run('unsquashfs', '-cat', file, 'bin/bash'), 'sh');
  await rm(file);
  await image.squashfs();
  assert.equal(await digestOfFile(file), digest);
});

it('makes the file of a base once, and a small one of each release on it', { timeout: MAX_MS }, async () => {
  await using at = await place();
  const stored = await imageOf(at.objects, BASE, { coding: 'gzip' });
  const base = await openImage(at.objects, stored.digest, { images_dir: at.images_dir });
  const release = async (name: string) => {
    const root = path.join(at.dir, name);
    await mkdir(root);
    await writeFile(path.join(root, 'server.js'), `serve(${name})`);
    const of = { command: 'node server.js', cwd: '/workspace', env: {}, port: 80, user: null, labels: {} };
    const made = await assembleImage({
      ...{ objects: at.objects, tmp_dir: at.tmp_dir, base, root, prefix: 'workspace/', run: of, name },
      max_bytes: 1e6,
    });
    return openImage(at.objects, made.digest, { images_dir: at.images_dir, base });
  };
  const [one, second] = [await release('first'), await release('second')];
  const first = await one.squashfs();
  assert.deepEqual(first.slice(0, 1), await base.squashfs());
  for (const layer of stored.manifest.layers) await rm(path.join(at.dir, 'objects', blobKey(layer.digest)));
  const files = await second.squashfs();
  assert.deepEqual([files.length, files[0]], [2, first[0]]);
  assert.notEqual(files[1], first[1]);
  const listing = await run('unsquashfs', '-lc', files[1]!);
  assert.deepEqual(listing.trim().split('\n'), ['squashfs-root/workspace/server.js']);
  assert.equal(await run('unsquashfs', '-cat', files[1]!, 'workspace/server.js'), 'serve(second)');
  assert.deepEqual(
    await (await openImage(at.objects, second.digest, { images_dir: at.images_dir, base: null })).squashfs(),
    files,
    'also when builds start from no or another base by now',
  );
  const names = await imageFileNames(at.objects, second.digest, base);
  assert.equal(await sweepRootFiles(at.images_dir, new Set(names)), 1, 'the file of the first');
  assert.deepEqual((await readdir(at.images_dir)).sort(), [...new Set(names)].sort());
});

it('has whiteouts as overlayfs wants them', { timeout: MAX_MS }, async () => {
  await using at = await place();
  const above = [
    { name: 'etc/' },
    { name: 'etc/.wh..wh..opq' },
    { name: 'usr/lib/' },
    { name: 'usr/lib/.wh.libc.so' },
  ];
  const stored = await imageOf(at.objects, [...BASE, above]);
  const base = await imageOf(at.objects, BASE);
  const known = await openImage(at.objects, base.digest, { images_dir: at.images_dir });
  const image = await openImage(at.objects, stored.digest, { images_dir: at.images_dir, base: known });
  const [, upper, ...more] = await image.squashfs();
  assert.deepEqual(more, []);
  const listing = await run('unsquashfs', '-lln', upper!);
  assert.match(listing, /^c--------- 0\/0 +0, +0 .*squashfs-root\/usr\/lib\/libc\.so$/m);
  assert.doesNotMatch(listing, /shadow|\.wh\.|bin/);
});

it('leaves no squashfs of an image that is broken', { timeout: MAX_MS }, async () => {
  await using at = await place();
  const image = await opened(at, [[{ name: '../x', content: 'x' }]]);
  await assert.rejects(image.squashfs(), /leaves the image/);
  assert.deepEqual(await readdir(at.images_dir), []);
});

const NAMES = ['a', 'b', 'd/a', 'd/b', 'd/e/a', 'd/e/b', 's/a'];
const anItem: fc.Arbitrary<Item> = fc.oneof(
  fc.record({ name: fc.constantFrom(...NAMES), content: fc.constantFrom('', 'x', 'yy') }),
  fc.record({
    name: fc.constantFrom('a', 'd/b', 's'),
    type: fc.constant('symlink' as const),
    linkname: fc.constantFrom('d', '/d', '../../d'),
  }),
  fc.constantFrom('.wh.a', '.wh.d', 'd/.wh.a', 'd/.wh.e', 'd/.wh..wh..opq').map((name) => ({ name })),
);
const aLayer = fc
  .uniqueArray(anItem, { selector: ({ name }) => name, maxLength: 7 })
  .map((items) => [
    ...['d/', 'd/e/'].filter((of) => items.some(({ name }) => name.startsWith(of))).map((name) => ({ name })),
    ...items,
  ]);

it('agrees with umoci about what layers give', { timeout: 4 * MAX_MS }, async (t) => {
  let refused_by_both = 0;
  let compared = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(aLayer, { minLength: 1, maxLength: 3 }), async (layers) => {
      await using at = await place();
      const image = await opened(at, layers);
      const archive = path.join(at.dir, 'oci.tar');
      await pipeline(exportOciLayout(image, 'x'), createWriteStream(archive));
      await mkdir(path.join(at.dir, 'layout'));
      await run('tar', '-xf', archive, '-C', path.join(at.dir, 'layout'));
      const bundle = path.join(at.dir, 'bundle');
      const theirs = await run('umoci', 'unpack', '--rootless', '--image', `${at.dir}/layout:x`, bundle).then(
        () => listed(path.join(bundle, 'rootfs')),
        () => null,
      );
      const out = path.join(at.dir, 'ours');
      const ours = await image.squashfs().then(
        async ([file]) => {
          await run('unsquashfs', '-d', out, file!);
          return listed(out);
        },
        () => null,
      );
      if (ours === null && theirs === null) refused_by_both++;
      else compared++;
      assert.deepEqual(ours, theirs);
    }),
    { numRuns: 60 },
  );
  t.diagnostic(`compared ${compared}, refused by both ${refused_by_both}`);
  assert.ok(compared >= 20);
});

async function listed(root: string): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const name of (await readdir(root, { recursive: true })).sort()) {
    const at = path.join(root, name);
    const kind = await lstat(at);
    found[name] = kind.isSymbolicLink()
      ? `→ ${await readlink(at)}`
      : kind.isDirectory()
        ? 'dir'
        : await readFile(at, 'utf8');
  }
  return found;
}
