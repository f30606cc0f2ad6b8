import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { it } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import fc from 'fast-check';
import { KilnError } from '../../domain/errors.ts';
import { type Flattening, flatten } from './flatten.ts';
import { openImage } from './image.ts';
import { type Item, imageOf, place, type Read, readTar, sha256, tarOf } from './layers.fixtures.ts';

async function flat(layers: Item[][], limits: Flattening['limits'] = {}): Promise<Map<string, Read>> {
  const tars = await Promise.all(layers.map(tarOf));
  const of = tars.map((bytes, i) => {
    const stored = [bytes, gzipSync(bytes), zstdCompressSync(bytes)][i % 3]!;
    return { diff_id: sha256(bytes), open: async () => Readable.from([stored]) };
  });
  return readTar(flatten({ layers: of, limits }));
}

/** Names with contents, link targets as `→ x`, folders as null. */
async function seen(...layers: Item[][]): Promise<Record<string, string | null>> {
  const entries = [...(await flat(layers))].filter(([name]) => name !== './');
  return Object.fromEntries(
    entries.map(([name, { type, content, link }]) => [
      name.replace(/\/$/, ''),
      type === 'directory' ? null : type === 'file' ? content : `→ ${link}`,
    ]),
  );
}

const file = (name: string, content = name): Item => ({ name, content });
const link = (name: string, linkname: string): Item => ({ name, type: 'symlink', linkname });
const hard = (name: string, linkname: string): Item => ({ name, type: 'link', linkname });
const refused = (pattern: RegExp) => (error: unknown) =>
  error instanceof KilnError && error.code === 'INVALID_ARCHIVE' && pattern.test(error.message);

it('lets later layers win, and folders of several layers join', async () => {
  const got = await seen(
    [file('./d/a', '1'), file('./d/b', '1'), file('x', 'file')],
    [file('d/b', '2'), file('x/y', 'in a folder now')].filter(({ name }) => name !== 'x/y'),
    [{ name: 'x/' }, file('x/y', 'in a folder now'), file('/absolute', 'inside')],
  );
  assert.deepEqual(got, {
    absolute: 'inside',
    d: null,
    'd/a': '1',
    'd/b': '2',
    x: null,
    'x/y': 'in a folder now',
  });
});

it('hides what whiteouts name in lower layers, not in their own', async () => {
  const lower = [file('d/a'), file('d/b'), file('e/old'), file('e/sub/old'), file('f')];
  const got = await seen(lower, [
    file('e/new'),
    file('e/.wh..wh..opq', ''),
    file('d/.wh.a', ''),
    file('f', 'again'),
    file('.wh.f', ''),
    file('.wh.nothing', ''),
    file('gone/.wh.x', ''),
    file('.wh..wh.plnk/9.9', ''),
  ]);
  assert.deepEqual(got, { d: null, 'd/b': 'd/b', e: null, 'e/new': 'e/new', f: 'again' });
  assert.deepEqual(await seen(lower, [file('.wh.e', ''), file('.wh.d', ''), file('.wh.f', '')]), {});
});

it('follows a folder that is a link as the container would, never out of the root', async () => {
  const got = await seen(
    [{ name: 'usr/lib/' }, link('lib', 'usr/lib'), link('up', '../../../..'), link('abs', '/usr')],
    [file('lib/a'), file('up/b'), file('abs/c'), file('lib/.wh.none', '')],
  );
  assert.equal(got['usr/lib/a'], 'lib/a');
  assert.equal(got.b, 'up/b');
  assert.equal(got['usr/c'], 'abs/c');
  assert.equal(got.lib, '→ usr/lib');
  await assert.rejects(
    seen([link('a', 'b'), link('b', 'a'), file('a/x')]),
    refused(/"a\/x" is in a folder of too many links/),
  );
  assert.equal((await seen([link('x', 'y')], [{ name: 'x/' }, file('x/z')]))['x/z'], 'x/z');
});

it('keeps the content of a hard link when its other name is gone or replaced', async () => {
  const lower = [file('a', 'content'), hard('b', 'a'), hard('./c', './b')];
  const both = await flat([lower]);
  assert.equal(both.get('a')?.content, 'content');
  assert.deepEqual([both.get('b')?.type, both.get('b')?.link], ['link', 'a']);
  assert.deepEqual([both.get('c')?.type, both.get('c')?.link], ['link', 'a']);
  assert.deepEqual(await seen(lower, [file('.wh.a', '')]), { b: 'content', c: '→ b' });
  assert.deepEqual(await seen(lower, [file('a', 'new')]), { a: 'new', b: 'content', c: '→ b' });
  assert.deepEqual(await seen([file('a', '1')], [hard('b', 'a')]), { a: '1', b: '→ a' });
  await assert.rejects(seen([hard('b', '../../etc/shadow')]), refused(/"b" leaves the image/));
  await assert.rejects(seen([hard('b', 'none')]), refused(/hard link to "none", which is no file/));
});

it('keeps owners, modes, times and capabilities; leaves devices out', async () => {
  const pax = { gid: '2100000', 'SCHILY.xattr.user.a': 'v', 'SCHILY.xattr.trusted.overlay.opaque': 'y' };
  const got = await flat([
    [
      { name: './', mode: 0o1777, uid: 7 },
      { name: 'su', content: 'x', mode: 0o4755, uid: 1, pax },
      { name: 'dev/sda', type: 'block-device', devmajor: 8, devminor: 0 },
      { name: 'dev/null', type: 'character-device', devmajor: 1, devminor: 3 },
      { name: 'fifo', type: 'fifo' },
      { name: `${'long/'.repeat(40)}ü`, content: 'deep' },
    ],
  ]);
  const su = got.get('su')!;
  assert.deepEqual([su.mode, su.uid, su.pax.gid, su.mtime_s], [0o4755, 1, '2100000', 1_600_000_000]);
  assert.equal(su.pax['SCHILY.xattr.user.a'], 'v');
  assert.ok(!Object.keys(su.pax).some((key) => key.includes('trusted')));
  assert.deepEqual([got.get('./')?.mode, got.get('./')?.uid], [0o1777, 7]);
  assert.equal(got.get('fifo')?.type, 'fifo');
  assert.equal(got.get(`${'long/'.repeat(40)}ü`)?.content, 'deep');
  assert.ok(![...got.keys()].some((name) => name.startsWith('dev/') && name !== 'dev/'));
});

it('refuses layers that lie', async () => {
  await assert.rejects(seen([file('../x')]), refused(/"\.\.\/x" leaves the image/));
  await assert.rejects(seen([file('a/../../x')]), refused(/leaves the image/));
  await assert.rejects(seen([file('a'), file('a/b')]), refused(/"a\/b" is in something that is no folder/));
  await assert.rejects(seen([file('.wh...', '')]), refused(/hides nothing that could be/));
  await assert.rejects(seen([file('n'.repeat(256))]), refused(/too long/));
  await assert.rejects(flat([[file('a'), file('b'), file('c')]], { max_entries: 2 }), refused(/more than 2/));
  await assert.rejects(flat([[file('a', 'x'.repeat(9000))]], { max_bytes: 5000 }), refused(/more than 5000/));
  const deep = Array.from({ length: 20 }, (_, i) =>
    link(`l${i}`, `${i ? `l${i - 1}` : 'd'}/${'a/'.repeat(1000)}`),
  );
  const names = deep.map(({ name }) => file(`${name}/x`));
  await assert.rejects(seen([...deep, ...names]), refused(/in too many folders/));
  const large: Item = { name: 'x', pax: { 'SCHILY.xattr.user.a': 'x'.repeat(2000) } };
  await assert.rejects(flat([[large]], { max_names_bytes: 1999 }), refused(/names and attributes/));
  const bytes = await tarOf([file('a')]);
  const cut = { diff_id: null, open: async () => Readable.from([bytes.subarray(0, 600)]) };
  await assert.rejects(buffer(flatten({ layers: [cut] })), refused(/cut short/));
  const other = { diff_id: sha256(Buffer.from('other')), open: async () => Readable.from([bytes]) };
  await assert.rejects(buffer(flatten({ layers: [other] })), refused(/but the configuration says/));
});

/** What a layer does to a map of paths, said as simply as it can be: hide first, then put. */
function model(layers: Item[][]): Record<string, string | null> {
  const now = new Map<string, string | null>();
  const remove = (path: string, self = true) => {
    for (const key of [...now.keys()])
      if ((self && key === path) || key.startsWith(path === '' ? '' : `${path}/`)) now.delete(key);
  };
  for (const layer of layers) {
    for (const { name } of layer) {
      const [, folder, hidden] = /^(?:(.*)\/)?\.wh\.(.*)$/.exec(name) ?? [];
      if (hidden === '.wh..opq') remove(folder ?? '', false);
      else if (hidden !== undefined) remove(folder ? `${folder}/${hidden}` : hidden);
    }
    for (const { name, content } of layer) {
      if (name.includes('.wh.')) continue;
      const path = name.replace(/\/$/, '');
      if (!name.endsWith('/')) remove(path);
      now.set(path, name.endsWith('/') ? null : content!);
    }
  }
  return Object.fromEntries([...now].sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Folders `d`, `d/e` always come first in a layer that has something in them, as every real writer does it. */
const NAMES = ['a', 'b', 'd/a', 'd/b', 'd/e/a', 'd/e/b'];
const anItem = fc.oneof(
  fc.tuple(fc.constantFrom(...NAMES), fc.string({ maxLength: 3 })).map(([name, text]) => file(name, text)),
  fc
    .constantFrom('.wh.a', '.wh.d', 'd/.wh.a', 'd/.wh.e', 'd/e/.wh.b', 'd/.wh..wh..opq', '.wh..wh..opq')
    .map((name) => file(name, '')),
);
const aLayer = fc.uniqueArray(anItem, { selector: ({ name }) => name, maxLength: 8 }).map((items) => {
  const inside = (folder: string) => items.some(({ name }) => name.startsWith(folder));
  const folders = ['d/', 'd/e/'].filter(inside).map((name): Item => ({ name }));
  return [...folders, ...items];
});

it('agrees with a simple model of layers', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(aLayer, { minLength: 1, maxLength: 4 }), async (layers) => {
      assert.deepEqual(await seen(...layers), model(layers));
    }),
    { numRuns: 300 },
  );
});

it('opens an image for drivers: an archive for docker load, with zstd unpacked', async () => {
  await using at = await place();
  for (const coding of ['gzip', 'zstd', 'tar'] as const) {
    const image = await imageOf(at.objects, [[file('a')], [file('b')], [file('a')]], { coding });
    const opened = await openImage(at.objects, image.digest, { images_dir: at.images_dir });
    const archive = await readTar(opened.dockerArchive());
    const [entry] = JSON.parse(archive.get('manifest.json')!.content);
    assert.equal(entry.Config, `${image.manifest.config.digest.slice(7)}.json`);
    assert.deepEqual(JSON.parse(archive.get(entry.Config)!.content), image.config);
    assert.equal(entry.Layers.length, 3);
    assert.equal(archive.size, 4, 'a layer that is there twice is in the archive once');
    if (coding !== 'gzip')
      assert.equal(sha256(Buffer.from(archive.get(entry.Layers[0])!.content)), sha256(image.tars[0]!));
    await assert.rejects(opened.blob(sha256(Buffer.from('x'))), /is no blob of the image/);
  }
});
