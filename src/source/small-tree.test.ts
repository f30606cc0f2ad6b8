import assert from 'node:assert/strict';
import { createReadStream } from 'node:fs';
import { chmod, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import fc from 'fast-check';
import { DigestMismatch } from './extract.ts';
import { ArtifactTooLarge, packTree } from './pack.ts';
import { packSmallTree, readSmallTree } from './small-tree.ts';

const name = fc.constantFrom('a', 'b.txt', 'index.html', 'ünï', '.hidden', 'x'.repeat(120), 'a-b', 'dist');
const file = fc.record({
  path: fc.array(name, { minLength: 1, maxLength: 4 }),
  content: fc.uint8Array({ maxLength: 1500 }),
  executable: fc.boolean(),
});

describe('a small tree in memory', () => {
  let dir: string;
  let n = 0;
  before(async () => {
    dir = await mkdtemp(path.join(os.tmpdir(), 'kiln-small-'));
  });
  after(() => rm(dir, { recursive: true, force: true }));

  /** Packs a folder as a snapshot is, and reads it back. */
  async function frozen(root: string) {
    const out_path = path.join(dir, `source-${++n}.tar.zst`);
    const packed = await packTree({ root, prefix: '', out_path, compress: 'zstd', max_bytes: 1e9 });
    return {
      sha256: packed.sha256,
      out_path,
      tree: await readSmallTree(createReadStream(out_path), packed.sha256),
    };
  }

  it('packs to the very bytes that packing the folder gives (I11)', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(file, { maxLength: 12 }),
        fc.constantFrom('.', 'dist', 'a'),
        async (files, sub) => {
          const root = path.join(dir, `tree-${++n}`);
          await mkdir(root);
          for (const { path: parts, content, executable } of files) {
            const at = path.join(root, ...parts);
            try {
              await mkdir(path.dirname(at), { recursive: true });
              await writeFile(at, content);
              if (executable) await chmod(at, 0o755);
            } catch {
              // A folder and a file of one name: whichever came first.
            }
          }
          const { tree } = await frozen(root);
          const exclude = (rel: string) => path.basename(rel).startsWith('.');
          const out = (what: string) => path.join(dir, `${what}-${n}.tar`);
          const small = await packSmallTree({
            tree: tree!,
            root: sub,
            exclude,
            out_path: out('small'),
            max_bytes: 1e9,
          });
          const at = path.join(root, sub);
          const folder = await packTree({
            root: at,
            prefix: '',
            exclude,
            out_path: out('big'),
            compress: 'none',
            max_bytes: 1e9,
          }).catch(() => null);
          if (small === null) return assert.equal(folder, null);
          assert.deepEqual(
            { ...small, index: { ...small.index } },
            { ...folder, index: { ...folder!.index } },
          );
          assert.ok((await readFile(out('small'))).equals(await readFile(out('big'))));
        },
      ),
      { numRuns: 40 },
    );
  });

  it('leaves links to a real folder, refuses damage, and keeps the size limit', async () => {
    const root = path.join(dir, 'plain');
    await mkdir(root);
    await writeFile(path.join(root, 'index.html'), 'x'.repeat(5000));
    const { tree, out_path, sha256 } = await frozen(root);
    const pack = { tree: tree!, root: '.', exclude: () => false, out_path: path.join(dir, 'limited.tar') };
    await assert.rejects(packSmallTree({ ...pack, max_bytes: 4000 }), ArtifactTooLarge);
    await assert.rejects(readSmallTree(createReadStream(out_path), '0'.repeat(64)), DigestMismatch);
    const bytes = await readFile(out_path);
    await writeFile(`${out_path}.cut`, bytes.subarray(0, bytes.length >> 1));
    await assert.rejects(readSmallTree(createReadStream(`${out_path}.cut`), sha256), DigestMismatch);
    await symlink('index.html', path.join(root, 'link.html'));
    assert.equal((await frozen(root)).tree, null);
  });
});
