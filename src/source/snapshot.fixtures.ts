import assert from 'node:assert/strict';
import { join } from 'node:path';
import { KilnError } from '../domain/errors.ts';
import { fileObjectStore } from '../store/objects/files.ts';
import type { ObjectStore } from '../store/objects/port.ts';
import { type SnapshotOptions, snapshotSource } from './snapshot.ts';
import { plant, type Tree } from './tree.fixtures.ts';

export const LIMITS = { max_bytes: 1e9, max_files: 10_000 };

/** A workspace, a store, and a snapshot that brings them together. */
export async function workshop(dir: string, tree: Tree) {
  const root = await plant(join(dir, 'workspace'), tree);
  const store: ObjectStore = fileObjectStore(join(dir, 'objects'));
  const tmp_dir = join(dir, 'tmp');
  const cache_file = join(dir, 'cache.json');
  const options: SnapshotOptions = {
    root,
    output_path: null,
    include_git: false,
    limits: LIMITS,
    store,
    cache_file,
    tmp_dir,
  };
  const snap = (more: Partial<SnapshotOptions> = {}) => snapshotSource({ ...options, ...more });
  return { root, store, tmp_dir, cache_file, snap };
}

/** For assert.rejects: a KilnError of this code whose message says this. */
export function isCode(code: string, text: RegExp) {
  return (error: unknown): true => {
    assert.ok(error instanceof KilnError, String(error));
    assert.equal(error.code, code);
    assert.match(error.message, text);
    return true;
  };
}
