import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { appendFileSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { chmod, mkdir, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { describe, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import fc from 'fast-check';
import { extractTar } from './extract.ts';
import { applySync, diffManifest, type ManifestEntry, packPaths, readManifest } from './manifest.ts';
import { isCode, LIMITS } from './snapshot.fixtures.ts';
import { RACY_MS } from './snapshot-cache.ts';
import { describeTree, plant, scratch, type Tree } from './tree.fixtures.ts';

const read = (root: string) => readManifest(root, { limits: LIMITS });
const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');

/** What the CLI and the server do together; answers what was sent. */
async function sync(from: string, to: string): Promise<{ missing: string[]; deleted: number }> {
  const done = await applySync(to, await read(from));
  await extractTar({ input: packPaths(from, done.missing), into: to, limits: LIMITS });
  return done;
}

describe('readManifest', () => {
  it('describes each entry as a snapshot would keep it', async () => {
    await using temporary = await scratch();
    const root = await plant(join(temporary.dir, 'root'), {
      'b.txt': 'hello',
      'a/run': { run: 'x' },
      'a/to': { link: '../b.txt' },
      empty: { dir: true },
      'node_modules/x': 'left out',
      '.env': 'left out',
    });
    await chmod(join(root, 'b.txt'), 0o600);
    const want: ManifestEntry[] = [
      { path: 'a', type: 'dir', size: 0, mode: 0o755 },
      { path: 'a/run', type: 'file', size: 1, mode: 0o755, sha256: sha256('x') },
      { path: 'a/to', type: 'symlink', size: 0, mode: 0o777, target: '../b.txt' },
      { path: 'b.txt', type: 'file', size: 5, mode: 0o644, sha256: sha256('hello') },
      { path: 'empty', type: 'dir', size: 0, mode: 0o755 },
    ];
    assert.deepEqual(await read(root), want);
  });

  it('remembers digests, and is not fooled by files that changed since', async () => {
    await using temporary = await scratch();
    const root = await plant(join(temporary.dir, 'root'), { a: '1', b: '2', c: '3' });
    const cached = () => readManifest(root, { limits: LIMITS, cache_file: join(temporary.dir, 'cache') });
    await cached();
    writeFileSync(join(root, 'a'), 'X'); // at once: the same size, and perhaps the same tick
    assert.equal((await cached())[0]?.sha256, sha256('X'));
    await pause(RACY_MS + 50);
    assert.deepEqual(await cached(), await read(root));
    const { files } = JSON.parse(await readFile(join(temporary.dir, 'cache'), 'utf8')) as {
      files: unknown[];
    };
    assert.equal(files.length, 3);
    const { atime, mtime } = statSync(join(root, 'b'));
    writeFileSync(join(root, 'b'), 'Y');
    utimesSync(join(root, 'b'), atime, mtime);
    await rename(join(root, 'c'), join(root, 'd'));
    assert.deepEqual(await cached(), await read(root));
    await writeFile(join(temporary.dir, 'cache'), 'broken');
    assert.deepEqual(await cached(), await read(root));
  });

  it('uses the cache instead of reading', async () => {
    await using temporary = await scratch();
    const root = await plant(join(temporary.dir, 'root'), { a: '1' });
    const cache_file = join(temporary.dir, 'cache');
    await pause(RACY_MS + 50);
    await readManifest(root, { limits: LIMITS, cache_file });
    const planted = (await readFile(cache_file, 'utf8')).replace(sha256('1'), sha256('planted'));
    await writeFile(cache_file, planted);
    assert.equal((await readManifest(root, { limits: LIMITS, cache_file }))[0]?.sha256, sha256('planted'));
  });

  it('has limits', async () => {
    await using temporary = await scratch();
    const root = await plant(join(temporary.dir, 'root'), { a: '12345', b: '' });
    await assert.rejects(
      readManifest(root, { limits: { max_bytes: 4, max_files: 9 } }),
      isCode('SOURCE_TOO_LARGE', /5 bytes/),
    );
    await assert.rejects(
      readManifest(root, { limits: { max_bytes: 9, max_files: 1 } }),
      isCode('SOURCE_TOO_LARGE', /1 file/),
    );
  });
});

describe('packPaths', () => {
  it('sends just these, and copes with what has gone', async () => {
    await using temporary = await scratch();
    const large = 'l'.repeat(12_000_000);
    const root = await plant(join(temporary.dir, 'root'), { 'a/b': 'x', c: 'y', large, e: { dir: true } });
    const into = join(temporary.dir, 'into');
    await extractTar({ input: packPaths(root, ['large', 'e', 'gone', 'a/b']), into, limits: LIMITS });
    await rm(join(root, 'c'));
    assert.deepEqual(await describeTree(into), await describeTree(root));
  });

  it('ends its thread when nobody reads on', async () => {
    await using temporary = await scratch();
    const root = await plant(join(temporary.dir, 'root'), { large: Buffer.alloc(40_000_000) });
    for (let i = 0; i < 6; i++) {
      for await (const _ of packPaths(root, ['large'])) break; // six, while only four may run at once
    }
    const whole = await buffer(packPaths(root, ['large']));
    assert.ok(whole.length > 40_000_000);
  });

  it('never leaves the root, whoever asks', async () => {
    await using temporary = await scratch();
    const root = await plant(join(temporary.dir, 'root'), { a: 'x' });
    for (const path of ['../secret', '/etc/passwd', 'a/../../x', '', '.', 'a//b']) {
      assert.throws(() => packPaths(root, [path]), isCode('FORBIDDEN_PATH', /leaves the folder/), path);
    }
  });
});

describe('sync', () => {
  it('sends what is missing, removes what is gone, and keeps what is left out', async () => {
    await using temporary = await scratch();
    const from = await plant(join(temporary.dir, 'from'), {
      same: 'same',
      changed: 'new',
      'new/file': 'x',
      'now-a-folder/x': 'x',
      'now-a-file': 'x',
      'now-a-link': { link: 'same' },
      run: { run: 'r' },
    });
    const to = await plant(join(temporary.dir, 'to'), {
      same: 'same',
      changed: 'old',
      'old/deep/file': 'x',
      'now-a-folder': 'file',
      'now-a-file/x': 'x',
      'now-a-link': 'file',
      run: 'r',
      'node_modules/kept': 'x',
      'half/gone': 'x',
      'half/node_modules/kept': 'x',
      '.env': 'kept',
    });
    const done = await sync(from, to);
    assert.deepEqual(done.missing, [
      'changed',
      'new',
      'new/file',
      'now-a-file',
      'now-a-folder',
      'now-a-folder/x',
      'now-a-link',
    ]);
    assert.deepEqual(await sync(from, to), { missing: [], deleted: 0 });
    assert.equal((await stat(join(to, 'run'))).mode & 0o777, 0o755);
    const kept = [
      '"node_modules"',
      '"node_modules/kept"',
      '"half"',
      '"half/node_modules"',
      '"half/node_modules/kept"',
      '".env"',
    ];
    const left = (await describeTree(to)).filter((line) => !kept.some((name) => line.startsWith(`${name} `)));
    assert.deepEqual(left, await describeTree(from));
    assert.equal(await readFile(join(to, '.env'), 'utf8'), 'kept');
  });

  it('makes any tree the same as any other', async () => {
    const name = fc.constantFrom('a', 'b', 'c', 'ü');
    const path = fc.array(name, { minLength: 1, maxLength: 3 }).map((names) => names.join('/'));
    const node = fc.oneof(
      fc.constantFrom('', 'x', 'y'),
      fc.constant({ run: 'x' }),
      fc.constant({ link: 'a' }),
      fc.constant({ dir: true as const }),
    );
    const tree = fc.array(fc.tuple(path, node), { maxLength: 8 }).map((entries) => {
      const kept: Tree = {};
      for (const [at, what] of entries) {
        if (!Object.keys(kept).some((k) => k === at || k.startsWith(`${at}/`) || at.startsWith(`${k}/`)))
          kept[at] = what;
      }
      return kept;
    });
    await fc.assert(
      fc.asyncProperty(tree, tree, async (one, other) => {
        await using temporary = await scratch();
        const from = await plant(join(temporary.dir, 'from'), one);
        const to = await plant(join(temporary.dir, 'to'), other);
        await sync(from, to);
        assert.deepEqual(await describeTree(to), await describeTree(from));
      }),
      { numRuns: 60 },
    );
  });

  it('deletes nothing outside, whatever the manifest or the workspace say', async () => {
    await using temporary = await scratch();
    await plant(join(temporary.dir, 'outside'), { keep: 'x' });
    const to = await plant(join(temporary.dir, 'to'), { a: 'x' });
    await symlink('../outside', join(to, 'out'));
    await mkdir(join(to, 'd'));
    const hostile: ManifestEntry[] = ['../outside/keep', '/etc/passwd', 'out/keep'].map((path) => ({
      path,
      type: 'file',
      size: 1,
      mode: 0o755,
      sha256: '',
    }));
    const done = await applySync(to, hostile);
    assert.deepEqual(done, { missing: hostile.map((entry) => entry.path), deleted: 3 });
    assert.equal(await readFile(join(temporary.dir, 'outside/keep'), 'utf8'), 'x');
    assert.deepEqual(await describeTree(to), []);
  });

  it('compares by content, not by time', async () => {
    const entry = (path: string, more: Partial<ManifestEntry> = {}): ManifestEntry => ({
      path,
      type: 'file',
      size: 1,
      mode: 0o644,
      sha256: 'a',
      ...more,
    });
    const have = [entry('same'), entry('other'), entry('kind'), entry('extra'), entry('mode')];
    const want = [
      entry('same'),
      entry('other', { sha256: 'b' }),
      entry('kind', { type: 'dir' }),
      entry('new'),
      entry('mode', { mode: 0o755 }),
    ];
    assert.deepEqual(diffManifest(have, want), { missing: ['other', 'kind', 'new'], extra: ['extra'] });
  });

  it('fails as a stream when a file is not what it was said to be', async () => {
    await using temporary = await scratch();
    const root = await plant(join(temporary.dir, 'root'), { large: Buffer.alloc(30_000_000) });
    const stream = packPaths(root, ['large']);
    const reading = (async () => {
      for await (const _ of stream) appendFileSync(join(root, 'large'), 'more'); // the reader is slower than the writer
    })();
    await assert.rejects(reading, { name: 'TreeChanged' });
  });
});
