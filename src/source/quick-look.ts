/**
 * Recognises an unchanged tree without listing it: what was found last time is statted again, and nothing else. A folder
 * whose times and inode are as they were holds the names that it held, so what was left out is left out still, too.
 */
import { createHash } from 'node:crypto';
import { readFile, rename, rm, statfs, writeFile } from 'node:fs/promises';
import { z } from 'zod';
import type { Listing } from './listing.ts';
import { RACY_MS } from './snapshot-cache.ts';
import { statInThreads } from './survey.ts';
import type { SourceRules } from './survey-thread.ts';
import { KIND, ROW } from './tree.ts';

/** What a snapshot made of the tree, kept beside the look. */
const Made = z.object({
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
  size_bytes: z.number(),
  files: z.number(),
  left_out: z.array(z.string()),
  secrets_left_out: z.array(z.string()),
});
export type Made = z.infer<typeof Made>;

const FORMAT = 1;
const Header = z.object({ format: z.literal(FORMAT), key: z.string(), stats: z.string(), made: Made });

/**
 * File systems (statfs type) on which a folder's times tell of every name that comes or goes, at once: not a network's, where
 * they may be remembered for a minute, nor what some other system serves.
 */
const TRUSTED: ReadonlySet<number> = new Set([
  ...[0xef53, 0x58465342, 0x9123683e, 0xf2f52010, 0x2fc12fc1], // ext2 to ext4, XFS, Btrfs, F2FS, ZFS
  ...[0x01021994, 0x794c7630], // tmpfs, overlayfs
  0x1a, // APFS
]);

/** The root and the rules, whether they are in the snapshot or not. */
const ALSO = ['', '.kilnignore'];

/** What was made of the tree, if nothing in it has changed since; else, or without a usable file, null. */
export async function lookQuickly(
  file: string,
  root: string,
  rules: SourceRules,
  max_entries: number,
): Promise<Made | null> {
  const text = await readFile(file, 'utf8').catch(() => '');
  const end = text.indexOf('\n');
  if (end < 0) return null;
  const header = Header.safeParse(parse(text.slice(0, end)));
  if (!header.success || header.data.key !== keyOf(root, rules)) return null;
  const names = text.slice(end + 1);
  const paths = names === '' ? [] : names.split('\0');
  if (paths.length > max_entries) return null;
  const stats = digestOf(await statInThreads(root, [...paths, ...ALSO]));
  return stats === header.data.stats ? header.data.made : null;
}

/**
 * Remembers a listing and what was made of it, or forgets: on a file system that is not trusted, and when anything in it is so
 * young that it could change without showing it.
 * `looked_at_ms` is the time before the listing was begun. Never fails.
 */
export async function keepLook(
  file: string,
  root: string,
  rules: SourceRules,
  { paths, rows }: Listing,
  looked_at_ms: number,
  made: Made,
): Promise<void> {
  const temporary = `${file}.${process.pid}.${process.hrtime.bigint()}.tmp`;
  try {
    const also = await statInThreads(root, ALSO);
    const all = new Float64Array(rows.length + also.length);
    all.set(rows);
    all.set(also, rows.length);
    const settled = youngest(all) <= looked_at_ms - RACY_MS;
    if (!settled || !(await keepsFolderTimes(root))) return await rm(file, { force: true });
    const header = { format: FORMAT, key: keyOf(root, rules), stats: digestOf(all), made };
    await writeFile(temporary, `${JSON.stringify(header)}\n${paths.join('\0')}`, { flag: 'wx', mode: 0o600 });
    await rename(temporary, file);
  } catch {
    await rm(temporary, { force: true }).catch(() => {});
  }
}

export async function keepsFolderTimes(dir: string): Promise<boolean> {
  return TRUSTED.has((await statfs(dir)).type);
}

function keyOf(root: string, rules: SourceRules): string {
  const { output_path, include_git, keep_outputs, wanted = 'source' } = rules;
  return JSON.stringify([root, output_path, include_git, keep_outputs, wanted]);
}

function digestOf(rows: Float64Array): string {
  const bytes = new Uint8Array(rows.buffer, rows.byteOffset, rows.byteLength);
  return createHash('sha256').update(bytes).digest('hex');
}

function youngest(rows: Float64Array): number {
  let latest = 0;
  for (let at = 0; at < rows.length; at += ROW.width)
    if (rows[at + ROW.kind] !== KIND.gone)
      latest = Math.max(latest, rows[at + ROW.mtime_ms]!, rows[at + ROW.ctime_ms]!);
  return latest;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
