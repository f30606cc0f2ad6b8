import { createHash } from 'node:crypto';
import { readFile, rename, rm, writeFile } from 'node:fs/promises';
import { z } from 'zod';
import type { Listing } from './listing.ts';
import { KIND, ROW } from './tree.ts';

/**
 * What the last snapshot of a workspace saw, so that the next one need not read an unchanged workspace. The stat rows
 * of all files (path, size, mode, mtime, ctime, inode) are kept as one digest: only "all the same" is ever asked.
 */
export interface SnapshotCache {
  fingerprint: string;
  sha256: string;
  size_bytes: number;
  files: number;
}

const FORMAT = 1;
const Stored = z.object({
  format: z.literal(FORMAT),
  fingerprint: z.string(),
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
  size_bytes: z.number(),
  files: z.number(),
});

/**
 * A file written within this time before it was looked at may be written again without its times moving (clocks of
 * file systems tick as slowly as 2 s on FAT), so such rows prove nothing. Git calls them racily clean.
 */
export const RACY_MS = 2_000;

/**
 * The digest of a listing, or null when a file in it is too young to be recognised later. `looked_at_ms` is the
 * time before the first stat. ctime counts too: unlike mtime no program can set it.
 */
export function fingerprint(listing: Listing, looked_at_ms: number): string | null {
  const { paths } = listing;
  const rows = listing.rows.slice();
  for (let i = 0; i < paths.length; i++) {
    const at = i * ROW.width;
    if (rows[at + ROW.kind] === KIND.dir) {
      // A folder is in the tar by name only; its times move when something left out changes in it.
      rows.fill(0, at + 1, at + ROW.width);
      continue;
    }
    const youngest_ms = Math.max(rows[at + ROW.mtime_ms]!, rows[at + ROW.ctime_ms]!);
    if (youngest_ms > looked_at_ms - RACY_MS) return null;
  }
  return createHash('sha256')
    .update(paths.join('\0'))
    .update('\0')
    .update(new Uint8Array(rows.buffer, rows.byteOffset, rows.byteLength))
    .digest('hex');
}

/** A cache that is missing, broken or of another format is no cache. */
export async function readCache(file: string): Promise<SnapshotCache | null> {
  try {
    return Stored.parse(JSON.parse(await readFile(file, 'utf8')));
  } catch {
    return null;
  }
}

/** Never fails: without a cache the next snapshot reads everything, that is all. */
export async function writeCache(file: string, cache: SnapshotCache | null): Promise<void> {
  const temporary = `${file}.${process.pid}.${process.hrtime.bigint()}.tmp`;
  try {
    if (!cache) {
      await rm(file, { force: true });
      return;
    }
    await writeFile(temporary, JSON.stringify({ format: FORMAT, ...cache }), { flag: 'wx', mode: 0o600 });
    await rename(temporary, file);
  } catch {
    await rm(temporary, { force: true }).catch(() => {});
  }
}
