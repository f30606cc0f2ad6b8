import { createHash, hash } from 'node:crypto';
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { fillRow, isUnchanged } from './stat.ts';
import { errno, Folders, isGone, isOtherKind, KIND, ROW, TreeUnreadable } from './tree.ts';

const PIECE_BYTES = 1024 * 1024;
const MAX_READS = 5;

export interface Hashed {
  /** Hex, in the order of the paths; null for what is no longer a file. */
  sha256: (string | null)[];
  /** The stat rows the digests belong to. */
  rows: Float64Array;
}

/** Hashes files; one that is not as its stat row says is read until it settles, and the row brought up to date. */
export function hashPaths(root: string, paths: string[], rows: Float64Array): Hashed {
  const folders = new Folders(root);
  const buffer = Buffer.allocUnsafeSlow(PIECE_BYTES);
  try {
    return { sha256: paths.map((path, i) => hashFile(folders, path, rows, i, buffer)), rows };
  } finally {
    folders.close();
  }
}

function hashFile(
  folders: Folders,
  path: string,
  rows: Float64Array,
  row: number,
  buffer: Buffer,
): string | null {
  try {
    for (let attempt = 0; attempt < MAX_READS; attempt++) {
      const fd = openSync(
        folders.entry(path),
        constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK,
      );
      try {
        if (attempt > 0) fillRow(rows, row, fstatSync(fd));
        if (rows[row * ROW.width + ROW.kind] !== KIND.file) return null;
        const digest = hashOpen(fd, buffer);
        if (isUnchanged(rows, row, fd)) return digest;
      } finally {
        closeSync(fd);
      }
    }
  } catch (error) {
    if (isGone(error) || isOtherKind(error)) return null;
    throw new TreeUnreadable(path, `cannot be read (${errno(error) || error})`);
  }
  throw new TreeUnreadable(path, `kept changing while it was read (${MAX_READS} attempts)`);
}

function hashOpen(fd: number, buffer: Buffer): string {
  let got = readSync(fd, buffer, 0, buffer.length, null);
  if (got < buffer.length) return hash('sha256', buffer.subarray(0, got), 'hex');
  const digest = createHash('sha256');
  while (got > 0) {
    digest.update(buffer.subarray(0, got));
    got = readSync(fd, buffer, 0, buffer.length, null);
  }
  return digest.digest('hex');
}
