import assert from 'node:assert/strict';
import { link, mkdir, readdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { Readable } from 'node:stream';
import { it } from 'node:test';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { KilnError } from '../../domain/errors.ts';
import { flatten, layerHeaders } from './flatten.ts';
import { type Item, imageOf, place, type Read, readTar, sha256, tarOf } from './layers.fixtures.ts';
import { rootFileNames, splitRoot } from './machine-root.ts';
import { BASE_DIGEST } from './manifest.ts';
import { sweepRootFiles } from './squashfs.ts';

const file = (name: string, content = name): Item => ({ name, content });
const symlink = (name: string, linkname: string): Item => ({ name, type: 'symlink', linkname });
const hard = (name: string, linkname: string): Item => ({ name, type: 'link', linkname });

/** All layers as one tar; or what those from `below` on change. Those below are then read as headers, whole only if `whole_below`. */
async function flat(layers: Item[][], below = 0, whole_below = true): Promise<Map<string, Read>> {
  const of = (await Promise.all(layers.map(tarOf))).map((bytes, i) => {
    const diff_id = sha256(bytes);
    const open = async () => Readable.from([gzipSync(bytes)]);
    if (i >= below) return { diff_id, open };
    const headers = async () => Readable.from(layerHeaders(await open(), diff_id), { objectMode: false });
    return {
      diff_id,
      headers,
      open: whole_below ? open : () => assert.fail('the layer itself is not needed'),
    };
  });
  return named(await readTar(flatten({ layers: of, below })));
}

/** Without the slash after folders; hard links as what they are links to. */
function named(tar: Map<string, Read>): Map<string, Read> {
  const plain = new Map([...tar].map(([name, of]) => [name.replace(/\/$/, ''), of]));
  for (const [name, of] of plain) if (of.type === 'link') plain.set(name, plain.get(of.link)!);
  return plain;
}

const isGone = ({ type }: Read) => type === 'character-device';

/**
 * What overlayfs shows, by its documentation: folders of both are one with the upper's attributes; anything else of
 * the upper hides what is below. It hides its whiteouts only in folders that are in both, so they may be in no other.
 */
function overlaid(lower: Map<string, Read>, upper: Map<string, Read>): Map<string, Read> {
  const shown = new Map(lower);
  for (const [name, of] of upper) {
    const parent = path.posix.dirname(name);
    assert.equal(upper.get(parent)?.type, 'directory', `${name} is in a folder that the file has`);
    if (isGone(of)) assert.ok(lower.has(name), `${name} was there`);
    if (of.type !== 'directory' || lower.get(name)?.type !== 'directory')
      for (const other of lower.keys())
        if (other === name || other.startsWith(`${name}/`)) shown.delete(other);
    if (!isGone(of)) shown.set(name, of);
  }
  return shown;
}

const sorted = (tar: Map<string, Read>) => [...tar].sort(([a], [b]) => (a < b ? -1 : 1));

const BASE: Item[] = [
  { name: './', mode: 0o755 },
  { name: 'd/', mode: 0o1777, uid: 7 },
  file('d/a'),
  { name: 'd/e/' },
  file('d/e/x'),
  file('d/e/y'),
  { name: 'usr/' },
  { name: 'usr/lib/', uid: 3 },
  symlink('lib', 'usr/lib'),
  file('usr/lib/libc'),
  { name: 'keep/' },
  file('keep/me'),
];

it('names only what the layers above change, and the folders on the way as they are below', async () => {
  const got = await flat([BASE, [file('d/e/new'), file('lib/libz')]], 1, false);
  assert.deepEqual([...got.keys()].sort(), [
    ...['.', 'd', 'd/e', 'd/e/new', 'usr', 'usr/lib', 'usr/lib/libz'],
  ]);
  assert.deepEqual([got.get('d')?.mode, got.get('d')?.uid, got.get('usr/lib')?.uid], [0o1777, 7, 3]);
  assert.deepEqual([...(await flat([BASE, []], 1, false)).keys()], ['.']);
});

it('says what whiteouts and opaque folders take away, by name, and only what there was', async () => {
  const above = [
    [
      file('d/.wh.a', ''),
      file('d/.wh.never', ''),
      file('.wh.keep', ''),
      file('mine'),
      file('gone/.wh.x', ''),
    ],
    [
      { name: 'd/' },
      { name: 'd/e/' },
      file('d/e/.wh..wh..opq', ''),
      file('d/e/y', 'new'),
      file('.wh.mine', ''),
    ],
  ];
  const got = await flat([BASE, ...above], 1, false);
  const gone = [...got].filter(([, of]) => isGone(of)).map(([name]) => name);
  assert.deepEqual(gone.sort(), ['d/a', 'd/e/x', 'keep']);
  assert.equal(got.get('d/e/y')?.content, 'new');
  assert.ok(!got.has('mine'), 'of the layers above each other nothing is left to take away');
});

it('has no folder shine through that was another one', async () => {
  const again = [file('.wh.d', ''), file('.wh.lib', '')];
  const got = await flat(
    [BASE, again, [{ name: 'd/' }, file('d/b'), { name: 'lib/' }, file('lib/z')]],
    1,
    false,
  );
  assert.deepEqual([got.get('d/a')?.type, got.get('d/e')?.type], ['character-device', 'character-device']);
  assert.equal(got.get('d/b')?.content, 'd/b');
  assert.deepEqual([got.get('lib')?.type, got.get('lib/z')?.content], ['directory', 'lib/z']);
  assert.ok(!got.has('usr/lib'));
});

it('takes the content of a hard link to a file below along', async () => {
  const got = await flat(
    [
      [file('a', 'shared'), file('b')],
      [hard('c', 'a'), hard('d', 'c')],
    ],
    1,
  );
  assert.deepEqual([...got.keys()], ['.', 'c', 'd']);
  assert.deepEqual([got.get('c')?.content, got.get('d')?.content], ['shared', 'shared']);
});

const NAMES = ['a', 'b', 's', 'd', 'd/a', 'd/b', 'd/e', 'd/e/a', 'd/e/b', 's/a'];
const anItem: fc.Arbitrary<Item> = fc.oneof(
  fc.record({ name: fc.constantFrom(...NAMES), content: fc.constantFrom('', 'x', 'yy') }),
  fc.record({ name: fc.constantFrom('d/', 'd/e/', 'a/', 's/'), mode: fc.constantFrom(0o755, 0o700) }),
  fc.tuple(fc.constantFrom('a', 'd/b', 's'), fc.constantFrom('d', '/d', '../d')).map((of) => symlink(...of)),
  fc.tuple(fc.constantFrom('b', 'd/a'), fc.constantFrom('a', 'd/b', 'd/e/a')).map((of) => hard(...of)),
  fc
    .constantFrom('.wh.a', '.wh.d', 'd/.wh.a', 'd/.wh.e', 'd/e/.wh.b', 'd/.wh..wh..opq', '.wh..wh..opq')
    .map((name) => ({ name, content: '' })),
);
/** In front of every layer's own, so that few of them are of the kind that nobody could unpack. */
const THERE: Item[] = [file('a'), { name: 'd/' }, file('d/b'), { name: 'd/e/', mode: 0o750 }, file('d/e/a')];
const FIRST: Item[] = [...THERE, hard('d/e/c', 'd/b')];
const aLayer = fc.array(anItem, { maxLength: 6 });
const layersOf = fc
  .array(aLayer, { minLength: 2, maxLength: 4 })
  .map(([first, ...more]) => [[...FIRST, ...first!], ...more]);

it('laid over the layers below, gives what all layers give', async (t) => {
  let compared = 0;
  let with_whiteouts = 0;
  await fc.assert(
    fc.asyncProperty(layersOf, fc.nat(), async (layers, at) => {
      const below = 1 + (at % (layers.length - 1));
      const all = await flat(layers).catch((error) => {
        assert.ok(error instanceof KilnError); // a layer that nobody could unpack
        return null;
      });
      if (all === null) return assert.rejects(flat(layers, below));
      const upper = await flat(layers, below);
      const shown = overlaid(await flat(layers.slice(0, below)), upper);
      assert.deepEqual(sorted(shown), sorted(all));
      compared++;
      if ([...upper.values()].some(isGone)) with_whiteouts++;
    }),
    { numRuns: 300 },
  );
  t.diagnostic(`compared ${compared}, ${with_whiteouts} with whiteouts`);
  assert.ok(compared > 100 && with_whiteouts > 25);
});

it('refuses headers of a layer that is not the one it should be', async () => {
  const bytes = await tarOf([file('a')]);
  const headers = layerHeaders(Readable.from([bytes]), sha256(Buffer.from('other')));
  await assert.rejects(readTar(Readable.from(headers, { objectMode: false })), /but the configuration says/);
});

it('splits an image where its base ends', async () => {
  await using at = await place();
  const base = await imageOf(at.objects, [[file('a')], [file('b')]]);
  const [a, b, c, d] = await Promise.all(
    ['a', 'b', 'c', 'd'].map(async (of) => sha256(await tarOf([file(of)]))),
  );
  const of = (diff_ids: (string | undefined)[], annotated = false) =>
    splitRoot(
      {
        manifest: { ...base.manifest, ...(annotated ? { annotations: { [BASE_DIGEST]: base.digest } } : {}) },
        config: { ...base.config, rootfs: { type: 'layers', diff_ids: diff_ids as string[] } },
      },
      base,
    );
  assert.deepEqual(of([a, b, c]), { below: [a, b], above: [c] });
  assert.deepEqual(of([a, b, c, d], true), { below: [a, b], above: [c, d] });
  assert.deepEqual(of([a, b]), { below: [a, b], above: [] }, 'only other settings');
  assert.deepEqual(of([a, c]), { below: [], above: [a, c] });
  assert.deepEqual(of([a]), { below: [], above: [a] });
  assert.deepEqual(of([c, d, a], true), { below: [c, d], above: [a] }, 'an earlier base');
  assert.deepEqual(of([c], true), { below: [], above: [c] });
  assert.deepEqual(of([]), { below: [], above: [] });
  const on_none = splitRoot({ ...base, manifest: { ...base.manifest, annotations: {} } }, null);
  assert.deepEqual(on_none.below, []);
});

it('gives files names by what is in them', () => {
  const names = (below: string[], above: string[]) => {
    const of = (letters: string[]) => letters.map((letter) => sha256(Buffer.from(letter)));
    return rootFileNames({ below: of(below), above: of(above) });
  };
  const squashfs = (...of: Parameters<typeof names>) =>
    names(...of).filter((name) => name.endsWith('.squashfs'));
  const [lower, upper] = squashfs(['a', 'b'], ['c']);
  assert.deepEqual(squashfs(['a', 'b'], ['d'])[0], lower, 'another release on the same base');
  assert.deepEqual(squashfs(['a', 'b'], []), [lower]);
  assert.deepEqual(squashfs([], ['a', 'b']), [lower], 'the base itself');
  assert.notEqual(squashfs(['x', 'b'], ['c'])[1], upper, 'what is changed depends on what is below');
  assert.notEqual(squashfs(['a'], ['b', 'c'])[1], upper);
  assert.equal(new Set([...squashfs([], ['a', 'b', 'c']), lower, upper]).size, 3);
  assert.equal(squashfs([], []).length, 1);
  assert.equal(names(['a', 'b'], ['c']).filter((name) => name.endsWith('.headers')).length, 2);
});

it('sweeps files that nobody keeps, and what a crash left, but none that a machine runs from', async () => {
  await using at = await place();
  const [kept, gone, used] = ['a', 'b', 'c'].map((digit) => `${digit.repeat(64)}.squashfs`);
  const headers = [`${'a'.repeat(64)}.headers`, `${'b'.repeat(64)}.headers`];
  const strange = ['builder.squashfs', 'kernel'];
  assert.equal(await sweepRootFiles(at.images_dir, new Set()), 0, 'no such folder yet');
  await mkdir(at.images_dir);
  for (const name of [kept!, gone!, used!, `${kept}.12-0.tmp`, ...headers, ...strange])
    await writeFile(path.join(at.images_dir, name), '');
  await link(path.join(at.images_dir, used!), path.join(at.tmp_dir, 'root.img'));
  assert.equal(await sweepRootFiles(at.images_dir, new Set([kept!, headers[0]!])), 3);
  const left = (await readdir(at.images_dir)).sort();
  assert.deepEqual(left, [kept, used, headers[0], ...strange].sort());
});
