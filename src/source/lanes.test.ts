/** One tar written by several threads: large trees, for which they are used. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { open, readFile, rm, symlink, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { after, before, describe, it } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { type Compression, makeLanes } from './lanes.ts';
import { type Listing, sortByBytes } from './listing.ts';
import { statPaths } from './stat.ts';
import { type TarOrder, writeTarFile } from './tar-file.ts';
import { orderEntries, shareOut } from './tar-plan.ts';
import { writeWhole } from './tar-writer.fixtures.ts';
import { SLAB_BYTES, writeTar } from './tar-writer.ts';
import { runTask } from './threads.ts';
import { plant, scratch, type Tree } from './tree.fixtures.ts';
import { KIND, ROW } from './tree.ts';
import { zstdDecoded } from './zstd.ts';

/** 24 MB in files of many sizes, two of them larger than a slab; a link, a folder, a long name. */
function largeTree(): Tree {
  const noise = Buffer.from(Array.from({ length: 100_003 }, (_, i) => Math.imul(i, 0x9e3779b1) >>> 24));
  const tree: Tree = { link: { link: 'f/1' }, empty: { dir: true }, [`${'n'.repeat(200)}/x`]: 'long' };
  for (let i = 0; i < 280; i++) {
    const size = (i * 7919) % 130_000;
    tree[`f/${i}`] = i % 2 ? noise.subarray(0, size) : Buffer.alloc(size, `text ${i} `);
  }
  tree['large/one'] = Buffer.alloc(2 * SLAB_BYTES + 77, 'one');
  tree['large/two'] = Buffer.alloc(SLAB_BYTES, 'two');
  return tree;
}

let temporary: Awaited<ReturnType<typeof scratch>>;
let root: string;
let listing: Listing;
before(async () => {
  temporary = await scratch();
  const tree = largeTree();
  root = await plant(join(temporary.dir, 'root'), tree);
  const paths = sortByBytes([...Object.keys(tree), 'f', 'large', 'n'.repeat(200)]);
  listing = { paths, rows: statPaths(root, paths) };
});
after(() => temporary[Symbol.asyncDispose]());

const extra = [
  { path: 'p/f/7', content: Buffer.from('instead'), executable: true },
  { path: 'p/zz', content: Buffer.from('last'), executable: false },
];

function orderOf(more: Partial<TarOrder> = {}): TarOrder {
  const rows = listing.rows.slice();
  return {
    root,
    prefix: 'p/',
    ...listing,
    rows,
    copies: new Map(),
    extra,
    want_index: true,
    max_bytes: 1e9,
    ...more,
  };
}

const inOneGo = (order: TarOrder) => writeWhole({ ...order, entries: orderEntries(order) });

const write = (name: string, compress: Compression, more: Partial<TarOrder> = {}, signal?: AbortSignal) =>
  writeTarFile({ prepare: async () => orderOf(more), path: join(temporary.dir, name), compress, signal });

describe('a tar written in lanes', () => {
  it('is shared out by the tree alone: every entry once, in order, a slab at most unless it is one file', () => {
    const order = orderOf();
    const task = { ...order, entries: orderEntries(order) };
    const shares = shareOut(task);
    assert.ok(shares.length > 10);
    assert.deepEqual(
      shares.flatMap(({ from, to }) => Array.from({ length: to - from }, (_, i) => from + i)),
      [...task.entries.keys()],
    );
    for (const { from, to } of shares) {
      let length = 0;
      const sink = { take: () => Buffer.alloc(SLAB_BYTES), give: (given: number) => (length += given) };
      writeTar(task, { from, to }, sink);
      assert.ok(length <= SLAB_BYTES || to === from + 1, `${from} to ${to} is ${length}`);
    }
  });

  for (const compress of ['none', 'zstd', 'gzip'] as const) {
    it(`has the bytes of one written in one go (${compress})`, async () => {
      const reference = inOneGo(orderOf());
      const written = await write(`same.${compress}`, compress);
      const stored = await readFile(join(temporary.dir, `same.${compress}`));
      const tar =
        compress === 'zstd'
          ? await buffer(zstdDecoded(Readable.from([stored])))
          : compress === 'gzip'
            ? gunzipSync(stored)
            : stored;
      assert.ok(tar.equals(reference.tar));
      assert.equal(written.sha256, createHash('sha256').update(tar).digest('hex'));
      assert.equal(written.stored_bytes, stored.length);
      const { tar: _, ...summary } = reference;
      const { size_bytes, file_bytes, files, index } = written;
      assert.deepEqual({ size_bytes, file_bytes, files, index }, summary);
      for (const { name, offset, size, sha256 } of index)
        assert.equal(
          createHash('sha256')
            .update(tar.subarray(offset, offset + size))
            .digest('hex'),
          sha256,
          name,
        );
    });
  }

  it('is the same file every time, and many are written at once', async () => {
    const digests = await Promise.all(
      Array.from({ length: 12 }, async (_, n) => {
        await write(`again-${n}`, 'zstd');
        const stored = await readFile(join(temporary.dir, `again-${n}`));
        await rm(join(temporary.dir, `again-${n}`));
        return createHash('sha256').update(stored).digest('hex');
      }),
    );
    assert.equal(new Set(digests).size, 1);
  });

  it('leaves out what has gone, and says so in the rows', async () => {
    const gone = join(root, 'f/100');
    const content = await readFile(gone);
    const order = orderOf();
    await unlink(gone);
    try {
      const path = join(temporary.dir, 'gone.tar');
      const written = await writeTarFile({ prepare: async () => order, path, compress: 'none' });
      const at = listing.paths.indexOf('f/100') * ROW.width;
      assert.equal(written.rows[at + ROW.kind], KIND.gone);
      assert.equal(
        written.index.some(({ name }) => name === 'p/f/100'),
        false,
      );
      assert.equal(
        written.sha256,
        createHash('sha256')
          .update(await readFile(path))
          .digest('hex'),
      );
    } finally {
      fs.writeFileSync(gone, content);
      listing.rows = statPaths(root, listing.paths);
    }
  });

  it('is given up when one lane fails: too large, never still, abandoned; no file is left', async () => {
    const path = join(temporary.dir, 'failing');
    for (const max_bytes of [3 * SLAB_BYTES, 15_000_000])
      await assert.rejects(write('failing', 'zstd', { max_bytes }), { name: 'TarTooLarge' });
    const swapped = join(root, 'f/200');
    const content = await readFile(swapped);
    const order = orderOf();
    await unlink(swapped);
    await symlink('/etc/passwd', swapped);
    try {
      const writing = writeTarFile({ prepare: async () => ({ ...order }), path, compress: 'zstd' });
      await assert.rejects(writing, { name: 'TreeUnreadable', path: 'f/200', message: /kept changing/ });
    } finally {
      await unlink(swapped);
      fs.writeFileSync(swapped, content);
      listing.rows = statPaths(root, listing.paths);
    }
    const stop = new AbortController();
    const writing = write('failing', 'gzip', {}, stop.signal);
    setTimeout(() => stop.abort(new Error('enough')), 30);
    await assert.rejects(writing, /enough/);
    assert.equal(fs.existsSync(path), false);
  });

  it('says what the disk said when it does not take the bytes', async () => {
    await using file = await open(join(root, 'f/1'), 'r');
    const lanes = makeLanes(file.fd, 'zstd', 1);
    const order = orderOf();
    const tar = { ...order, entries: orderEntries(order) };
    const lane = runTask({ kind: 'lane', tar, shares: shareOut(tar), lanes, lane: 0, alone: true });
    await assert.rejects(lane, { code: 'EBADF' });
  });
});
