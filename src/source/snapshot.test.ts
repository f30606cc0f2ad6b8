import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { chmod, link, readdir, rm, symlink } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { faultyObjectStore } from '../store/objects/faulty.ts';
import { extractTar } from './extract.ts';
import { packTree } from './pack.ts';
import { isCode, LIMITS, workshop } from './snapshot.fixtures.ts';
import { describeTree, plant, scratch, type Tree } from './tree.fixtures.ts';

describe('snapshotSource', () => {
  it('stores a canonical tar of what is not left out, and says what was', async () => {
    await using temporary = await scratch();
    const { root, store, tmp_dir, snap } = await workshop(temporary.dir, {
      'package.json': '{}',
      'src/index.ts': 'export {}',
      'run.sh': { run: '#!/bin/sh' },
      'node_modules/a/index.js': 'x',
      'web/node_modules/b/index.js': 'x',
      '.next/cache/x': 'x',
      '.next/types/y': 'kept',
      'notes.tmp': 'x',
      '.kilnignore': '*.tmp\n',
      '.env': 'KEY=1',
      'web/.env.local': 'KEY=1',
      empty: { dir: true },
      out: { link: '/etc/passwd' },
    });
    const snapshot = await snap();
    assert.equal(snapshot.key, `sources/${snapshot.sha256}.tar.zst`);
    assert.deepEqual(snapshot.left_out.sort(), [
      '.next/cache/',
      'node_modules/',
      'notes.tmp',
      'web/node_modules/',
    ]);
    assert.deepEqual(snapshot.secrets_left_out, ['.env', 'web/.env.local']);
    assert.deepEqual([snapshot.reused, snapshot.unchanged, snapshot.files], [false, false, 6]);
    assert.equal((await store.head(snapshot.key))?.size_bytes, snapshot.stored_bytes);
    const into = join(temporary.dir, 'into');
    const extracted = await extractTar({
      input: await store.get(snapshot.key),
      into,
      limits: LIMITS,
      expect_sha256: snapshot.sha256,
    });
    assert.equal(extracted.files, snapshot.files);
    for (const gone of [
      'node_modules',
      'web/node_modules',
      '.next/cache',
      'notes.tmp',
      '.env',
      'web/.env.local',
    ]) {
      await rm(join(root, gone), { recursive: true });
    }
    assert.deepEqual(await describeTree(into), await describeTree(root));
    assert.deepEqual(await readdir(tmp_dir), []);
  });

  it('stores identical content once', async () => {
    await using temporary = await scratch();
    const { store, snap } = await workshop(temporary.dir, { a: '1', b: '2' });
    const first = await snap({ cache_file: null });
    await plant(join(temporary.dir, 'copy'), { b: '2', a: '1' });
    const second = await snap({ root: join(temporary.dir, 'copy'), cache_file: null });
    assert.equal(second.sha256, first.sha256);
    assert.deepEqual([first.reused, second.reused, second.unchanged], [false, true, false]);
    const keys = [];
    for await (const { key } of store.list('sources/')) keys.push(key);
    assert.deepEqual(keys, [first.key]);
  });

  it('passes over sockets, and takes hard links as files', async () => {
    await using temporary = await scratch();
    const { root, snap } = await workshop(temporary.dir, { a: 'same' });
    await link(join(root, 'a'), join(root, 'b'));
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(join(root, 'socket'), resolve));
    const first = await snap();
    server.close();
    const plain = await plant(join(temporary.dir, 'plain'), { a: 'same', b: 'same' });
    assert.equal(first.sha256, (await snap({ root: plain })).sha256);
  });

  it('never follows a link out of the root', async () => {
    await using temporary = await scratch();
    await plant(join(temporary.dir, 'outside'), { 'secret.txt': 'of the host' });
    const { root, store, snap } = await workshop(temporary.dir, { 'b.txt': 'b' });
    await symlink('../outside', join(root, 'a'));
    await symlink('../outside/secret.txt', join(root, '.kilnignore'));
    const snapshot = await snap();
    assert.equal(snapshot.files, 3);
    const into = join(temporary.dir, 'into');
    await extractTar({ input: await store.get(snapshot.key), into, limits: LIMITS });
    assert.deepEqual(await describeTree(into), await describeTree(root));
  });

  it('refuses what is over the limits, with the numbers', async () => {
    await using temporary = await scratch();
    const { tmp_dir, snap } = await workshop(temporary.dir, { a: Buffer.alloc(300_000), b: 'x', c: 'x' });
    const bytes = { max_bytes: 100_000, max_files: 10 };
    await assert.rejects(
      snap({ limits: bytes }),
      isCode('SOURCE_TOO_LARGE', /0\.3 MB, the limit is 0\.1 MB.*kilnignore/),
    );
    const files = { max_bytes: 1e9, max_files: 2 };
    await assert.rejects(snap({ limits: files }), isCode('SOURCE_TOO_LARGE', /more than 2 files/));
    await assert.rejects(readdir(tmp_dir), { code: 'ENOENT' });
  });

  it('names a source that is not there, and a name that is not UTF-8', async () => {
    await using temporary = await scratch();
    const { root, snap } = await workshop(temporary.dir, { a: 'x' });
    const missing = join(temporary.dir, 'none');
    await assert.rejects(snap({ root: missing }), isCode('SNAPSHOT_FAILED', /none" does not exist/));
    writeFileSync(Buffer.concat([Buffer.from(`${root}/bad-`), Buffer.from([0xff])]), 'x');
    await assert.rejects(snap(), isCode('SNAPSHOT_FAILED', /bad-.*not valid UTF-8/));
  });

  it('names a file and a folder that cannot be read', async (t) => {
    if (process.getuid?.() === 0) return t.skip('root can read everything');
    await using temporary = await scratch();
    const { root, snap } = await workshop(temporary.dir, { 'a/b': 'x', 'c/d': 'x' });
    await chmod(join(root, 'a/b'), 0);
    await assert.rejects(snap(), isCode('SNAPSHOT_FAILED', /"a\/b" cannot be read \(EACCES\)/));
    await chmod(join(root, 'a/b'), 0o644);
    await chmod(join(root, 'c'), 0);
    await assert.rejects(snap(), isCode('SNAPSHOT_FAILED', /"c" cannot be read \(EACCES\)/));
    await chmod(join(root, 'c'), 0o755);
  });

  it('cleans up when the store fails or the caller gives up', async () => {
    await using temporary = await scratch();
    const { store, tmp_dir, snap } = await workshop(temporary.dir, { a: Buffer.alloc(20_000_000, 'a') });
    const failing = faultyObjectStore(store, [{ operation: 'putFile', nth: 1, kind: 'no_space' }]);
    await assert.rejects(snap({ store: failing }), isCode('STORAGE_FAILED', /ENOSPC/));
    assert.deepEqual(await readdir(tmp_dir), []);
    const in_the_way = join(temporary.dir, 'workspace/a');
    await assert.rejects(
      snap({ tmp_dir: in_the_way }),
      isCode('STORAGE_FAILED', /could not be written \(EEXIST\)/),
    );
    const stop = new AbortController();
    const given_up = snap({ signal: stop.signal });
    stop.abort(new Error('enough'));
    await assert.rejects(given_up, /enough/);
    assert.deepEqual(await readdir(tmp_dir), []);
    assert.equal((await snap()).unchanged, false);
  });

  it('is the same when the look at the tree is shared between threads', async () => {
    await using temporary = await scratch();
    const tree: Tree = { '.kilnignore': 'odd-*\n' };
    for (let n = 0; n < 150; n++) {
      tree[`d${n}/x/y/file`] = String(n);
      tree[`d${n}/x/node_modules/z`] = 'left out';
      tree[`d${n}/odd-${n}`] = 'left out';
    }
    const { root, snap } = await workshop(temporary.dir, tree);
    const snapshot = await snap();
    assert.equal(snapshot.files, 151);
    assert.equal(snapshot.left_out.length, 100);
    assert.deepEqual(snapshot.left_out, snapshot.left_out.toSorted());
    assert.deepEqual((await snap()).left_out, snapshot.left_out);
    const packed = await packTree({
      root,
      prefix: '',
      exclude: (rel) => /(^|\/)(odd-|node_modules)/.test(rel),
      out_path: join(temporary.dir, 'out.tar'),
      compress: 'none',
      max_bytes: 1e9,
    });
    assert.equal(packed.sha256, snapshot.sha256);
    const just_over = { max_bytes: 1e9, max_files: 600 }; // each thread alone stays below
    await assert.rejects(snap({ limits: just_over }), isCode('SOURCE_TOO_LARGE', /more than 600 files/));
  });

  it('takes many snapshots at once', async () => {
    await using temporary = await scratch();
    const { tmp_dir, snap } = await workshop(temporary.dir, { a: Buffer.alloc(20_000_000, 'a'), b: 'b' });
    const all = await Promise.all(Array.from({ length: 12 }, () => snap({ cache_file: null })));
    assert.equal(new Set(all.map((snapshot) => snapshot.sha256)).size, 1);
    assert.deepEqual(await readdir(tmp_dir), []);
  });
});
