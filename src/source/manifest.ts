/**
 * What is in a tree, by content: how the CLI and the server find out which files to send. The client posts its
 * manifest; the server removes what is not wanted and answers what it lacks (applySync); the client sends a tar of
 * just that (packPaths).
 */
import { constants, readlinkSync } from 'node:fs';
import { open, rm, rmdir } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { KilnError } from '../domain/errors.ts';
import { type Listing, sortByBytes, sumOfFiles } from './listing.ts';
import { readHashCache, writeHashCache } from './manifest-cache.ts';
import { removeInside } from './remove.ts';
import { surveySource } from './survey.ts';
import { streamTar } from './tar-pipe.ts';
import { runTask, SPREAD } from './threads.ts';
import { errno, Folders, isGone, isOtherKind, KIND, ROW, TreeChanged } from './tree.ts';
import { realRoot } from './walk.ts';

export interface ManifestEntry {
  path: string;
  type: 'file' | 'dir' | 'symlink';
  /** 0 for folders and links. */
  size: number;
  /** 0o755 or 0o644 for files; 0o755 for folders; 0o777 for links. */
  mode: number;
  /** Files only. */
  sha256?: string;
  /** Links only. */
  target?: string;
}

export interface ManifestOptions {
  limits: { max_bytes: number; max_files: number };
  include_git?: boolean;
  /** Never left out; see exclude.ts. */
  output_path?: string | null;
  keep_outputs?: boolean;
  /** Remembers digests, so that unchanged files are not read again. */
  cache_file?: string | null;
}

const MIN_FILES_PER_THREAD = 500;
const MAX_ATTEMPTS = 5;
const SYNC_LIMITS = { max_bytes: 2 * 1024 ** 3, max_files: 200_000 };

/**
 * The tree as a snapshot would see it (same exclusions), sorted by bytes of the path.
 * @throws TreeUnreadable; KilnError SOURCE_TOO_LARGE
 */
export async function readManifest(root: string, o: ManifestOptions): Promise<ManifestEntry[]> {
  const real_root = realRoot(root);
  const looked_at_ms = Date.now();
  const listing = await list(real_root, o);
  const total = sumOfFiles(listing.rows);
  if (total > o.limits.max_bytes) {
    throw new KilnError(
      'SOURCE_TOO_LARGE',
      `The files are ${total.toLocaleString('en')} bytes, the limit is ${o.limits.max_bytes.toLocaleString('en')}. ` +
        'Leave out what the build does not need with a .kilnignore file, or raise the limit.',
    );
  }
  const known = o.cache_file ? await readHashCache(o.cache_file) : new Map<string, never>();
  const digests = await hashAll(real_root, listing, known);
  if (o.cache_file) await writeHashCache(o.cache_file, listing, digests, looked_at_ms);
  const folders = new Folders(real_root);
  try {
    return listing.paths.flatMap((_, i) => entryOf(folders, listing, i, digests.get(i)) ?? []);
  } finally {
    folders.close();
  }
}

/** What `want` has and `have` lacks or has differently (modes aside: applySync sets those), and the other way round. */
export function diffManifest(
  have: ManifestEntry[],
  want: ManifestEntry[],
): { missing: string[]; extra: string[] } {
  const had = new Map(have.map((entry) => [entry.path, entry]));
  const wanted = new Set(want.map((entry) => entry.path));
  const missing = want.filter((entry) => !isSame(had.get(entry.path), entry)).map((entry) => entry.path);
  const extra = have.filter((entry) => !wanted.has(entry.path)).map((entry) => entry.path);
  return { missing, extra };
}

function isSame(have: ManifestEntry | undefined, want: ManifestEntry): boolean {
  return have?.type === want.type && have.sha256 === want.sha256 && have.target === want.target;
}

/**
 * A plain tar of just these paths, for an upload; those that are gone are not in it. Errors destroy the stream.
 * The list may come from a server: ask only for what the own manifest has (or a secret could be asked for).
 * @throws KilnError FORBIDDEN_PATH for a path that leaves the root
 */
export function packPaths(root: string, paths: string[]): Readable {
  for (const path of paths) {
    const is_plain = path
      .split('/')
      .every((segment) => segment !== '' && segment !== '.' && segment !== '..');
    if (!is_plain)
      throw new KilnError('FORBIDDEN_PATH', `The path ${JSON.stringify(path)} leaves the folder.`);
  }
  return Readable.from(tarOf(root, paths), { objectMode: false });
}

async function* tarOf(root: string, paths: string[]): AsyncGenerator<Buffer> {
  const real_root = realRoot(root);
  const sorted = sortByBytes([...paths]);
  const rows = await runTask({ kind: 'stat', root: real_root, paths: sorted });
  const ready: Buffer[] = [];
  let wake = () => {};
  let taken = () => {};
  const abandon = new AbortController();
  let ended = false;
  const tar = {
    root: real_root,
    prefix: '',
    paths: sorted,
    rows,
    copies: new Map(),
    extra: [],
    want_index: false,
    max_bytes: Number.MAX_SAFE_INTEGER,
  };
  const done = streamTar(
    tar,
    (slab) =>
      new Promise((resolve) => {
        ready.push(Buffer.from(slab)); // the slab goes back and is filled again, the copy is the reader's
        taken = resolve;
        wake();
      }),
    abandon.signal,
  ).finally(() => {
    ended = true;
    wake();
  });
  done.catch(() => {}); // awaited below
  try {
    while (!ended || ready.length > 0) {
      const piece = ready.shift();
      if (piece) {
        yield piece;
        taken();
      } else {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    }
    await done;
  } finally {
    abandon.abort(new Error('the reader stopped'));
    taken();
  }
}

/**
 * Makes the workspace ready for the missing files: removes what is not wanted (what the exclusions leave out stays),
 * sets modes, and says which entries must be sent because they are not there or differ.
 * @throws TreeUnreadable; KilnError SOURCE_TOO_LARGE
 */
export async function applySync(
  root: string,
  want: ManifestEntry[],
  o: Partial<ManifestOptions> = {},
): Promise<{ missing: string[]; deleted: number }> {
  const have = await readManifest(root, { limits: SYNC_LIMITS, ...o });
  const wanted = new Map(want.map((entry) => [entry.path, entry]));
  const folders = new Folders(realRoot(root));
  let deleted = 0;
  try {
    // From the end: what is in a folder goes before the folder.
    for (const entry of have.toReversed()) {
      const wish = wanted.get(entry.path);
      if (!wish || wish.type !== entry.type) deleted += await remove(folders, entry, wish !== undefined);
      else if (entry.type === 'file' && entry.mode !== modeOf(wish.mode))
        await setMode(folders, entry, wish.mode);
    }
  } finally {
    folders.close();
  }
  return { missing: diffManifest(have, want).missing, deleted };
}

/** A folder that still holds what the exclusions leave out stays, unless something else must take its place. */
async function remove(folders: Folders, entry: ManifestEntry, in_the_way: boolean): Promise<number> {
  try {
    const at = folders.entry(entry.path);
    if (entry.type !== 'dir') await rm(at);
    else if (in_the_way) await removeInside(folders, entry.path);
    else await rmdir(at);
    return 1;
  } catch (error) {
    if (isGone(error) || isOtherKind(error) || errno(error) === 'ENOTEMPTY') return 0;
    throw error;
  }
}

/** chmod would follow a link that has just taken the file's place; fchmod cannot. */
async function setMode(folders: Folders, entry: ManifestEntry, mode: number): Promise<void> {
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
  const file = await open(folders.entry(entry.path), flags).catch(() => null);
  if (!file) return; // no longer a file, or gone: the next sync sees it
  await file.chmod(modeOf(mode)).finally(() => file.close());
}

/** Null for what is no link any more. */
function linkTarget(folders: Folders, path: string): string | null {
  try {
    return readlinkSync(folders.entry(path));
  } catch {
    return null;
  }
}

function modeOf(mode: number): number {
  return mode & 0o100 ? 0o755 : 0o644;
}

async function list(root: string, o: ManifestOptions): Promise<Listing> {
  const { include_git = false, output_path = null, keep_outputs = false, limits } = o;
  const rules = { include_git, output_path, keep_outputs };
  for (let attempt = 1; ; attempt++) {
    try {
      return (await surveySource(root, rules, limits.max_files)).listing;
    } catch (error) {
      if (!(error instanceof TreeChanged) || attempt === MAX_ATTEMPTS) throw error;
    }
  }
}

/** Digests by place in the listing; files that vanished meanwhile have none. Rows of re-read files are brought up to date. */
async function hashAll(
  root: string,
  listing: Listing,
  known: Map<string, { row: number[]; sha256: string }>,
): Promise<Map<number, string>> {
  const digests = new Map<number, string>();
  const unknown: number[] = [];
  listing.paths.forEach((path, i) => {
    const row = listing.rows.subarray(i * ROW.width, (i + 1) * ROW.width);
    if (row[ROW.kind] !== KIND.file) return;
    const cached = known.get(path);
    if (cached && row.every((value, n) => value === cached.row[n])) digests.set(i, cached.sha256);
    else unknown.push(i);
  });
  const threads = Math.max(1, Math.min(SPREAD, Math.floor(unknown.length / MIN_FILES_PER_THREAD)));
  await Promise.all(
    Array.from({ length: threads }, async (_, n) => {
      const share = unknown.filter((_, at) => at % threads === n);
      const rows = new Float64Array(share.length * ROW.width);
      share.forEach((i, at) => {
        rows.set(listing.rows.subarray(i * ROW.width, (i + 1) * ROW.width), at * ROW.width);
      });
      const found = await runTask({ kind: 'hash', root, paths: share.map((i) => listing.paths[i]!), rows });
      found.sha256.forEach((sha256, at) => {
        if (sha256 !== null) digests.set(share[at]!, sha256);
        listing.rows.set(found.rows.subarray(at * ROW.width, (at + 1) * ROW.width), share[at]! * ROW.width);
      });
    }),
  );
  return digests;
}

function entryOf(
  folders: Folders,
  { paths, rows }: Listing,
  i: number,
  sha256: string | undefined,
): ManifestEntry | null {
  const path = paths[i]!;
  const kind = rows[i * ROW.width + ROW.kind];
  if (kind === KIND.dir) return { path, type: 'dir', size: 0, mode: 0o755 };
  if (kind === KIND.symlink) {
    const target = linkTarget(folders, path);
    return target === null ? null : { path, type: 'symlink', size: 0, mode: 0o777, target };
  }
  if (!sha256) return null;
  return {
    path,
    type: 'file',
    size: rows[i * ROW.width + ROW.size]!,
    mode: modeOf(rows[i * ROW.width + ROW.mode]!),
    sha256,
  };
}
