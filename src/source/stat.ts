import { fstatSync, lstatSync, type Stats } from 'node:fs';
import { errno, type Folders, isGone, isOtherKind, KIND, ROW, TreeUnreadable } from './tree.ts';

/**
 * One stat row per path (see ROW); links are not followed, a vanished path has kind `gone`. Given a root, folders on the way
 * are taken by name, at half the cost: should one have become a link, the row is that of some other file, which is
 * good enough to compare with what was there. Rows that anybody is shown are asked for with `Folders`.
 */
export function statPaths(within: string | Folders, paths: string[]): Float64Array {
  const rows = new Float64Array(paths.length * ROW.width);
  for (let i = 0; i < paths.length; i++) {
    const stat = lstat(within, paths[i]!);
    if (stat) fillRow(rows, i, stat);
  }
  return rows;
}

function lstat(within: string | Folders, path: string): Stats | undefined {
  try {
    const at = typeof within === 'string' ? `${within}/${path}` : within.entry(path);
    return lstatSync(at, { throwIfNoEntry: false });
  } catch (error) {
    if (isGone(error) || isOtherKind(error)) return undefined;
    throw new TreeUnreadable(path, `cannot be read (${errno(error)})`);
  }
}

export function fillRow(rows: Float64Array, index: number, stat: Stats): void {
  const at = index * ROW.width;
  rows[at + ROW.kind] = kindOf(stat);
  rows[at + ROW.mode] = stat.mode;
  rows[at + ROW.size] = stat.size;
  rows[at + ROW.mtime_ms] = stat.mtimeMs;
  rows[at + ROW.ctime_ms] = stat.ctimeMs;
  rows[at + ROW.ino] = stat.ino;
}

function kindOf(stat: Stats): number {
  if (stat.isFile()) return KIND.file;
  if (stat.isDirectory()) return KIND.dir;
  return stat.isSymbolicLink() ? KIND.symlink : KIND.other;
}

/** Is the open file the one the row describes, with nothing written to it since? */
export function isUnchanged(rows: Float64Array, index: number, fd: number): boolean {
  const at = index * ROW.width;
  const now = fstatSync(fd);
  return (
    now.size === rows[at + ROW.size] &&
    now.mtimeMs === rows[at + ROW.mtime_ms] &&
    now.ctimeMs === rows[at + ROW.ctime_ms] &&
    now.ino === rows[at + ROW.ino]
  );
}
