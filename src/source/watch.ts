/**
 * Changes of a tree, by looking at it again and again: a look is cheap (nothing is read), works on every file system,
 * and cannot be fooled by a workspace that swaps folders for links, as a notification by path could.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { surveySource } from './survey.ts';
import { KIND, ROW, TreeChanged } from './tree.ts';
import { realRoot } from './walk.ts';

interface Entry {
  is_dir: boolean;
  size_bytes: number;
  /** Differs whenever the content may. */
  mark: string;
}
export type Look = ReadonlyMap<string, Entry>;

export interface Change {
  type: 'created' | 'modified' | 'deleted';
  /** Relative to the root. */
  path: string;
  is_dir: boolean;
  size_bytes: number;
}

const RULES = { output_path: null, include_git: false, keep_outputs: true };
const TRIES = 5;
const PAUSE_MS = 50;

/** @throws as surveySource; TreeChanged only when the tree does not settle. */
export async function lookAt(root: string, max_entries: number): Promise<Look> {
  for (let tries = 1; ; tries++)
    try {
      const { listing } = await surveySource(realRoot(root), RULES, max_entries);
      const { paths, rows } = listing;
      return new Map(
        paths.map((path, i) => [path, entryOf(rows.subarray(i * ROW.width, (i + 1) * ROW.width))]),
      );
    } catch (error) {
      if (!(error instanceof TreeChanged) || tries === TRIES) throw error;
      await pause(PAUSE_MS * tries);
    }
}

function entryOf(row: Float64Array): Entry {
  const is_dir = row[ROW.kind] === KIND.dir;
  // A folder's own times tell of its entries, which tell of themselves.
  const mark = is_dir
    ? 'dir'
    : [ROW.kind, ROW.mode, ROW.size, ROW.mtime_ms, ROW.ino].map((f) => row[f]).join();
  return { is_dir, size_bytes: is_dir ? 0 : row[ROW.size]!, mark };
}

/** Pure. What went first, from the leaves up; then what came or changed, from the top down. */
export function changesBetween(before: Look, after: Look): Change[] {
  const changes: Change[] = [];
  for (const [path, { is_dir }] of [...before].reverse())
    if (after.get(path)?.is_dir !== is_dir) changes.push({ type: 'deleted', path, is_dir, size_bytes: 0 });
  for (const [path, { is_dir, size_bytes, mark }] of after) {
    const known = before.get(path);
    if (known?.is_dir !== is_dir) changes.push({ type: 'created', path, is_dir, size_bytes });
    else if (known.mark !== mark) changes.push({ type: 'modified', path, is_dir, size_bytes });
  }
  return changes;
}
