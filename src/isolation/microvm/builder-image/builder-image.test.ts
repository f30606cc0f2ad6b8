import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { findProgram } from '../../program.ts';
import { listBuilderImages } from './image.ts';
import { dependencies, file, folder, link, makeCpio, orderModules } from './initramfs.ts';
import { makeRecipe, parseToolchains, recipeDigest, TOOLCHAINS } from './recipe.ts';
import { deb822, oneLine } from './sources.ts';

test('recipes: the order of names does not matter, their content does', () => {
  const one = makeRecipe({ toolchains: ['node', 'git'] });
  assert.equal(recipeDigest(one), recipeDigest(makeRecipe({ toolchains: ['git', 'node'] })));
  assert.notEqual(recipeDigest(one), recipeDigest(makeRecipe({ toolchains: ['git'] })));
  assert.notEqual(recipeDigest(one), recipeDigest(makeRecipe({ ...one, snapshot: '20260101T000000Z' })));
  assert.deepEqual(makeRecipe({}).toolchains, TOOLCHAINS);
  assert.equal(makeRecipe({ toolchains: ['git'] }).node, null);
  assert.deepEqual(parseToolchains('node, python'), ['node', 'python']);
  assert.throws(() => parseToolchains('node,pyhton'), /unknown toolchain "pyhton"; known: node/);
});

test('sources: only those of the release that Debian signs, without comments', () => {
  const keyring = 'Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg';
  const debian = `Types: deb\nURIs: http://a.example\nSuites: bookworm bookworm-updates\nComponents: main\n${keyring}`;
  const others = [
    'Types: deb\nURIs: http://b.example\nSuites: nodistro\nSigned-By: /usr/share/keyrings/nodesource.gpg',
    `Types: deb\nURIs: http://c.example\nSuites: trixie\n${keyring}`,
    `Types: deb\nEnabled: no\nURIs: http://d.example\nSuites: bookworm\n${keyring}`,
  ];
  assert.deepEqual(deb822(`# a comment\n${debian}\n\n${others.join('\n\n')}\n`, 'bookworm'), [debian]);
  const lines = [
    'deb http://a.example bookworm main',
    '# deb http://b.example bookworm main',
    'deb [arch=amd64 signed-by=/etc/apt/keyrings/docker.gpg] http://c.example bookworm stable',
    'deb-src http://d.example bookworm main',
    'deb http://e.example bullseye main',
  ];
  assert.deepEqual(oneLine(lines.join('\n'), 'bookworm'), [lines[0]]);
});

test('cpio: what cpio itself reads, and the same bytes each time', (t) => {
  const entries = [folder('bin'), file('bin/a', 'text', 0o755), link('bin/b', 'a'), file('empty', '')];
  const archive = makeCpio(entries);
  assert.deepEqual(archive, makeCpio(entries));
  assert.equal(archive.length % 4, 0);
  assert.match(archive.toString('latin1'), /^070701.*bin\0.*TRAILER!!!/s);
  const cpio = findProgram('cpio');
  if (cpio === null) return t.skip('cpio is not installed');
  const listing = execFileSync(cpio, ['-itv', '--quiet'], { input: archive }).toString();
  assert.match(
    listing,
    /^drwxr-xr-x.* bin\n-rwxr-xr-x .* 4 .* bin\/a\nlrwxrwxrwx.* bin\/b -> a\n-rw-r--r-- .* 0 .* empty\n$/,
  );
});

test('modules: after what they need, once, whether named with - or _', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'kiln-modules-'));
  t.after(() => rm(dir, { recursive: true }));
  await mkdir(join(dir, 'kernel'));
  const module = (name: string, depends: string, soft = '') =>
    writeFile(
      join(dir, 'kernel', `${name}.ko`),
      `ELF\0license=GPL\0${soft}depends=${depends}\0name=${name}\0`,
    );
  await module('virtio_net', 'net_failover,virtio');
  await module('net_failover', 'failover');
  await module('failover', '');
  await module('virtio', '');
  await module('ext4', 'jbd2', 'softdep=pre: crc32c-generic\0');
  await module('jbd2', '');
  await module('crc32c-generic', '');
  const ordered = await orderModules(dir, ['virtio_net', 'built_in', 'ext4', 'virtio']);
  assert.deepEqual(
    ordered.map((path) => path.slice(join(dir, 'kernel/').length)),
    ['failover', 'net_failover', 'virtio', 'virtio_net', 'jbd2', 'crc32c-generic', 'ext4'].map(
      (n) => `${n}.ko`,
    ),
  );
  assert.deepEqual(dependencies(Buffer.from('no module')), []);
});

test('a folder of images: only finished ones, newest first', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'kiln-images-'));
  t.after(() => rm(dir, { recursive: true }));
  assert.deepEqual(await listBuilderImages(join(dir, 'nowhere')), []);
  for (const [digest, made_at] of [
    ['a'.repeat(64), '2026-01-01T00:00:00Z'],
    ['b'.repeat(64), '2026-02-01T00:00:00Z'],
  ]) {
    await mkdir(join(dir, digest!));
    await writeFile(join(dir, digest!, 'builder.json'), JSON.stringify({ digest, made_at }));
  }
  await mkdir(join(dir, 'c'.repeat(64)));
  await mkdir(join(dir, 'making-x'));
  const images = await listBuilderImages(dir);
  assert.deepEqual(
    images.map(({ digest }) => digest[0]),
    ['b', 'a'],
  );
  assert.equal(images[0]!.kernel, join(dir, 'b'.repeat(64), 'kernel'));
});
