import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { chmod, mkdir, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import { describe, it } from 'node:test';
import { zstdDecompressSync } from 'node:zlib';
import fc from 'fast-check';
import { extract as tarStreamExtract } from 'tar-stream';
import { extractTar } from './extract.ts';
import { ArtifactTooLarge, type PackOptions, packTree } from './pack.ts';
import { describeTree, type Node, plant, scratch, type Tree } from './tree.fixtures.ts';

const LIMITS = { max_bytes: 1e9, max_files: 10_000 };

async function pack(dir: string, root: string, more: Partial<PackOptions> = {}) {
  const out_path = join(dir, `${Math.random()}.tar`);
  return {
    out_path,
    ...(await packTree({ root, prefix: '', out_path, compress: 'none', max_bytes: 1e9, ...more })),
  };
}

const SYSTEM_TAR = (() => {
  try {
    return execFileSync('tar', ['--version'], { encoding: 'utf8' }).includes('GNU tar')
      ? null
      : 'tar is not GNU tar';
  } catch {
    return 'there is no tar program';
  }
})();

/** Names that have broken archivers: long, not ASCII, beyond the BMP, control characters, option-like, JavaScript's own. */
const name = fc.oneof(
  fc.stringMatching(/^[a-z0-9_.-]{1,12}$/),
  fc.constantFrom(
    '-rf',
    '--checkpoint=1',
    'a\nb',
    'a\tb',
    ' ',
    'ünï',
    '日本語',
    '😀',
    '\ufffd',
    '\uffee',
    'a\\b',
    '*',
    '__proto__',
  ),
  fc.integer({ min: 90, max: 250 }).map((length) => 'n'.repeat(length)),
  fc.integer({ min: 40, max: 80 }).map((length) => 'é'.repeat(length)),
);
const fileName = name.filter((n) => n !== '.' && n !== '..');
const path = fc.array(fileName, { minLength: 1, maxLength: 4 }).map((names) => names.join('/'));
const node: fc.Arbitrary<Node> = fc.oneof(
  fc.string({ maxLength: 40 }),
  fc.integer({ min: 0, max: 3000 }).map((size) => Buffer.alloc(size, 'x')),
  fc.string({ maxLength: 10 }).map((run) => ({ run })),
  fc.oneof(fileName, fc.constant('../../etc'), fc.constant('l'.repeat(150))).map((link) => ({ link })),
  fc.constant({ dir: true as const }),
);

/** Drops entries whose path is a folder of another one or goes through a file. */
const tree: fc.Arbitrary<Tree> = fc.array(fc.tuple(path, node), { maxLength: 12 }).map((entries) => {
  const kept = new Map<string, Node>();
  for (const [at, what] of entries) {
    const clashes = [...kept.keys()].some(
      (k) => k === at || k.startsWith(`${at}/`) || at.startsWith(`${k}/`),
    );
    if (!clashes) kept.set(at, what);
  }
  return Object.fromEntries(kept);
});

describe('the canonical tar', () => {
  it('unpacks to the same tree: with extractTar, with tar-stream, with GNU tar', async () => {
    await fc.assert(
      fc.asyncProperty(tree, async (content) => {
        await using temporary = await scratch();
        const root = await plant(join(temporary.dir, 'root'), content);
        const packed = await pack(temporary.dir, root);
        const tar = await readFile(packed.out_path);
        assert.equal(createHash('sha256').update(tar).digest('hex'), packed.sha256);
        assert.equal(tar.length, packed.size_bytes);

        const ours = join(temporary.dir, 'ours');
        const extracted = await extractTar({ input: packed.out_path, into: ours, limits: LIMITS });
        assert.equal(extracted.sha256, packed.sha256);
        assert.equal(extracted.files, packed.files);
        assert.deepEqual(await describeTree(ours), await describeTree(root));
        assert.deepEqual(
          (await namesByTarStream(packed.out_path)).sort(),
          // With types, because without them it goes through links to folders.
          (await readdir(root, { recursive: true, withFileTypes: true }))
            .map((entry) => relative(root, join(entry.parentPath, entry.name)))
            .sort(),
        );
        if (SYSTEM_TAR === null) {
          const theirs = join(temporary.dir, 'theirs');
          await mkdir(theirs);
          execFileSync('tar', ['-xf', packed.out_path, '-C', theirs, '--no-same-owner']);
          assert.deepEqual(await describeTree(theirs), await describeTree(root));
        }
      }),
      { numRuns: 40 },
    );
  });

  it('is one with GNU tar about archives (skipped where there is none)', {
    skip: SYSTEM_TAR ?? false,
  }, async () => {
    await using temporary = await scratch();
    const long = `${'d'.repeat(100)}/${'e'.repeat(100)}/${'f'.repeat(100)}`;
    const root = await plant(join(temporary.dir, 'root'), {
      [long]: 'x',
      'ü/ö': 'y',
      run: { run: '#!' },
      to: { link: long },
    });
    for (const format of ['gnu', 'pax', 'ustar', 'oldgnu']) {
      const archive = join(temporary.dir, `${format}.tar.gz`);
      const names = format === 'ustar' ? ['ü', 'run'] : ['.'];
      execFileSync('tar', ['--format', format, '-czf', archive, '-C', root, ...names]);
      const into = join(temporary.dir, format);
      await extractTar({ input: archive, into, limits: LIMITS });
      const want = (await describeTree(root)).filter((line) => format !== 'ustar' || /^"(ü|run)/.test(line));
      assert.deepEqual(await describeTree(into), want, format);
    }
  });

  it('has the same digest for the same content, whatever the order, times and modes', async () => {
    await fc.assert(
      fc.asyncProperty(tree, fc.integer(), async (content, seed) => {
        await using temporary = await scratch();
        const first = await plant(join(temporary.dir, 'first'), content);
        const entries = Object.entries(content);
        const shuffled = entries
          .map((e, i) => ({ e, key: (seed ^ (i * 2654435761)) >>> 0 }))
          .sort((a, b) => a.key - b.key);
        const second = await plant(
          join(temporary.dir, 'second'),
          Object.fromEntries(shuffled.map(({ e }) => e)),
        );
        for (const [at, what] of entries) {
          if (typeof what !== 'string') continue;
          await utimes(join(second, at), 1, 1);
          await chmod(join(second, at), 0o600);
        }
        assert.equal((await pack(temporary.dir, first)).sha256, (await pack(temporary.dir, second)).sha256);
      }),
      { numRuns: 30 },
    );
  });

  it('has a digest that never changes between versions of Kiln', async () => {
    await using temporary = await scratch();
    const root = await plant(join(temporary.dir, 'root'), {
      'index.html': '<h1>hi</h1>',
      'a/b/c.txt': 'x',
      'a.txt': '',
      'bin/run': { run: '#!/bin/sh\n' },
      'ünï/日本.txt': 'é',
      link: { link: 'a/b/c.txt' },
      empty: { dir: true },
      [`${'long'.repeat(30)}.txt`]: 'long',
    });
    const { sha256 } = await pack(temporary.dir, root);
    assert.equal(sha256, 'c6765cce3230ee905ee5f8cc2430413ff772e1db1369790a1276b03417d4d0d3');
  });

  it('sorts by the bytes of the names, also beyond the BMP', async () => {
    await using temporary = await scratch();
    const names = ['a', 'a-b', 'a/b', 'a0', 'B', '\uffee', '😀', 'é'];
    const content = Object.fromEntries(names.filter((n) => n !== 'a').map((n) => [n, n]));
    const packed = await pack(temporary.dir, await plant(join(temporary.dir, 'root'), content));
    const want = names.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
    assert.deepEqual(await namesByTarStream(packed.out_path), want);
  });
});

describe('packTree', () => {
  it('indexes regular files by their path without the prefix', async () => {
    await using temporary = await scratch();
    const large = Buffer.alloc(9 * 1024 * 1024, 'large'); // more than two slabs
    const content = {
      'a/b.txt': 'hello',
      empty: '',
      large,
      to: { link: 'empty' },
      ['n'.repeat(120)]: 'long',
      __proto: 'p',
    };
    const root = await plant(join(temporary.dir, 'root'), content);
    const extra = [
      { path: 'workspace/a/b.txt', content: Buffer.from('replaced') },
      { path: 'kiln/run', content: Buffer.from('#!'), mode: 0o755 },
    ];
    const packed = await pack(temporary.dir, root, { prefix: 'workspace/', extra });
    const tar = await readFile(packed.out_path);
    assert.deepEqual(
      Object.keys(packed.index).sort(),
      ['__proto', 'a/b.txt', 'empty', 'kiln/run', 'large', 'n'.repeat(120)].sort(),
    );
    for (const [key, { offset, size, sha256 }] of Object.entries(packed.index)) {
      const bytes = tar.subarray(offset, offset + size);
      assert.equal(createHash('sha256').update(bytes).digest('hex'), sha256, key);
    }
    const at = (key: string) =>
      tar.subarray(packed.index[key]!.offset, packed.index[key]!.offset + packed.index[key]!.size);
    assert.equal(at('a/b.txt').toString(), 'replaced');
    assert.ok(at('large').equals(large));
    assert.equal(packed.files, 7);
    assert.equal(packed.file_bytes, 8 + 2 + large.length + 4 + 1);
    assert.equal(packed.stored_bytes, packed.size_bytes);
    const into = join(temporary.dir, 'into');
    await extractTar({ input: packed.out_path, into, limits: LIMITS, strip_prefix: 'workspace/' });
    assert.equal(await readFile(join(into, 'a/b.txt'), 'utf8'), 'replaced');
    assert.deepEqual((await readdir(into)).includes('kiln'), false);
  });

  it('compresses with zstd to the same tar', async () => {
    await using temporary = await scratch();
    const root = await plant(join(temporary.dir, 'root'), {
      a: 'x'.repeat(100_000),
      b: Buffer.alloc(500_000),
    });
    const plain = await pack(temporary.dir, root);
    const packed = await pack(temporary.dir, root, { compress: 'zstd' });
    const stored = await readFile(packed.out_path);
    assert.equal(packed.sha256, plain.sha256);
    assert.equal(createHash('sha256').update(zstdDecompressSync(stored)).digest('hex'), plain.sha256);
    assert.equal(packed.stored_bytes, stored.length);
    assert.ok(packed.stored_bytes < packed.size_bytes / 10);
  });

  it('turns links to packed files into copies and leaves the others out, for content that is served', async () => {
    await using temporary = await scratch();
    await writeFile(join(temporary.dir, 'secret'), 'outside');
    const root = await plant(join(temporary.dir, 'root'), {
      'real.txt': 'real',
      'sub/hop.txt': { link: '../real.txt' },
      'two-hops.txt': { link: 'sub/hop.txt' },
      'folder-link': { link: 'sub' },
      stolen: { link: '../secret' },
      absolute: { link: '/etc/passwd' },
      broken: { link: 'nowhere' },
      loop: { link: 'loop' },
      hidden: 'private',
      'to-hidden': { link: 'hidden' },
    });
    const exclude = (rel: string) => rel === 'hidden';
    const packed = await pack(temporary.dir, root, { dereference_inside: true, exclude });
    assert.deepEqual(packed.skipped, [
      'absolute: the link leaves the output folder',
      'broken: the link leads nowhere',
      'folder-link: links to folders are not followed',
      'loop: the link leads nowhere',
      'stolen: the link leaves the output folder',
      'to-hidden: what it links to is left out',
    ]);
    assert.deepEqual(Object.keys(packed.index), ['real.txt', 'sub/hop.txt', 'two-hops.txt']);
    const into = join(temporary.dir, 'into');
    await extractTar({ input: packed.out_path, into, limits: LIMITS });
    assert.equal(await readFile(join(into, 'two-hops.txt'), 'utf8'), 'real');
  });

  it('refuses what is too large, before reading and while reading, and leaves no file', async () => {
    await using temporary = await scratch();
    const root = await plant(join(temporary.dir, 'root'), { large: Buffer.alloc(6_000_000), small: 'x' });
    const out_path = join(temporary.dir, 'out.tar');
    for (const max_bytes of [1000, 3_000_000, 6_000_500]) {
      const packing = packTree({ root, prefix: '', out_path, compress: 'zstd', max_bytes });
      await assert.rejects(
        packing,
        (error) => error instanceof ArtifactTooLarge && error.max_bytes === max_bytes,
      );
      await assert.rejects(stat(out_path), { code: 'ENOENT' });
    }
  });

  it('names what it cannot read, and stops when told to', async () => {
    await using temporary = await scratch();
    const out_path = join(temporary.dir, 'out.tar');
    const missing = {
      root: join(temporary.dir, 'none'),
      prefix: '',
      out_path,
      compress: 'none' as const,
      max_bytes: 1e9,
    };
    await assert.rejects(packTree(missing), { name: 'TreeUnreadable' });
    const root = await plant(join(temporary.dir, 'root'), { a: Buffer.alloc(30_000_000) });
    const stop = new AbortController();
    const packing = packTree({ ...missing, root, signal: stop.signal });
    stop.abort(new Error('enough'));
    await assert.rejects(packing, /enough/);
    await assert.rejects(stat(out_path), { code: 'ENOENT' });
    await rm(root, { recursive: true });
  });
});

async function namesByTarStream(path: string): Promise<string[]> {
  const names: string[] = [];
  const reader = tarStreamExtract();
  const done = pipeline(createReadStream(path), reader);
  for await (const entry of reader) {
    names.push(entry.header.name.replace(/\/$/, ''));
    await buffer(entry);
  }
  await done;
  return names;
}
