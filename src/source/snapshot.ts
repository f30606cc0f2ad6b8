/**
 * Stage 1's work: freezes a workspace into a canonical tar, keyed by its digest, in the object store.
 *
 *   stat what was there last time (threads) ─► all the same? ─yes─► done, nothing listed
 *                                                    │no
 *   walk and stat (threads) ─► same as last time? ─yes─► done, nothing read
 *                                             │no
 *                       read, zstd and hash (threads) ─► temporary file ─► store
 *
 * Symlinks are stored as they are, never followed, also those that point out of the root: the tar then holds a
 * name, not content, and what unpacks it never writes or reads through links.
 */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { KilnError } from '../domain/errors.ts';
import type { ObjectStore } from '../store/objects/port.ts';
import type { Wanted } from './exclude.ts';
import { type Listing, withoutGone } from './listing.ts';
import { keepLook, lookQuickly, type Made } from './quick-look.ts';
import { fingerprint, readCache, writeCache } from './snapshot-cache.ts';
import { surveySource } from './survey.ts';
import type { SourceRules } from './survey-thread.ts';
import { type TarOrder, writeTarFile } from './tar-file.ts';
import { BLOCK, END_BYTES, paddedSize } from './tar-format.ts';
import { errno, KIND, ROW, TarTooLarge, TreeUnreadable } from './tree.ts';
import { realRoot } from './walk.ts';

export interface SnapshotLimits {
  /** Of the uncompressed tar. */
  max_bytes: number;
  /** Files and folders. */
  max_files: number;
}

export interface SnapshotOptions {
  root: string;
  /** The publish's own output, never left out; null when the build makes it. */
  output_path: string | null;
  include_git: boolean;
  /** Static content with nothing to build it from: `dist`, `build`, `target` are kept. */
  keep_outputs?: boolean;
  wanted?: Wanted;
  limits: SnapshotLimits;
  store: ObjectStore;
  /** Where to remember what an unchanged workspace looks like; null: always read everything. */
  cache_file: string | null;
  /** On the file system of the store, so that the finished file can be moved in. Made when missing. */
  tmp_dir: string;
  signal?: AbortSignal;
}

export interface Snapshot {
  sha256: string;
  /** Of the uncompressed tar. */
  size_bytes: number;
  /** Of the stored object. */
  stored_bytes: number;
  key: string;
  /** Files and links. */
  files: number;
  /** The object was stored before. */
  reused: boolean;
  /** Recognised without reading the files. */
  unchanged: boolean;
  /** Top-most paths left out, at most 100; folders end in '/'. */
  left_out: string[];
  /** Secrets left out (.env and the like); `!.env` in .kilnignore includes them. */
  secrets_left_out: string[];
  duration_ms: number;
}

let next_temporary = 0;

/**
 * @throws KilnError SNAPSHOT_FAILED naming the path that cannot be read or never settles; SOURCE_TOO_LARGE with
 * the numbers; STORAGE_FAILED when the store does not take it. Nothing is left behind in `tmp_dir`.
 */
export async function snapshotSource(o: SnapshotOptions): Promise<Snapshot> {
  const started_ms = performance.now();
  try {
    const root = realRoot(o.root);
    const freezing = new Freezing(o, root);
    const found =
      (await freezing.lookQuickly()) ?? (await freezing.lookAndRecognise()) ?? (await freezing.read());
    const { left_out, secrets_left_out } = freezing;
    return { ...found, left_out, secrets_left_out, duration_ms: performance.now() - started_ms };
  } catch (error) {
    throw explain(error);
  }
}

type Found = Omit<Snapshot, 'left_out' | 'secrets_left_out' | 'duration_ms'>;

/** One snapshot on its way: what was seen of the tree, and when. */
class Freezing {
  left_out: string[] = [];
  secrets_left_out: string[] = [];
  #listing: Listing = { paths: [], rows: new Float64Array() };
  #looked_at_ms = 0;
  readonly #o: SnapshotOptions;
  readonly #root: string;

  constructor(o: SnapshotOptions, root: string) {
    this.#o = o;
    this.#root = root;
  }

  get #rules(): SourceRules {
    const { output_path, include_git, keep_outputs = false, wanted = 'source' } = this.#o;
    return { output_path, include_git, keep_outputs, wanted };
  }

  async lookQuickly(): Promise<Found | null> {
    const { cache_file, limits, signal } = this.#o;
    signal?.throwIfAborted();
    if (!cache_file) return null;
    const made = await lookQuickly(lookFile(cache_file), this.#root, this.#rules, limits.max_files);
    if (!made || made.size_bytes > limits.max_bytes) return null;
    this.left_out = made.left_out;
    this.secrets_left_out = made.secrets_left_out;
    return await this.#stored(made);
  }

  async lookAndRecognise(): Promise<Found | null> {
    await this.#look();
    const { cache_file } = this.#o;
    if (!cache_file) return null;
    const cache = await readCache(cache_file);
    if (!cache || cache.fingerprint !== fingerprint(this.#listing, Number.POSITIVE_INFINITY)) return null;
    const found = await this.#stored(cache);
    if (found) await this.#remember(cache_file, this.#listing, found);
    return found;
  }

  async #look(): Promise<void> {
    const { limits, signal } = this.#o;
    signal?.throwIfAborted();
    this.#looked_at_ms = Date.now();
    const survey = await surveySource(this.#root, this.#rules, limits.max_files);
    this.left_out = survey.left_out;
    this.secrets_left_out = survey.secrets_left_out;
    this.#listing = survey.listing;
    refuseTooLarge(this.#listing, limits.max_bytes);
  }

  async #stored(of: { sha256: string; size_bytes: number; files: number }): Promise<Found | null> {
    const { sha256, size_bytes, files } = of;
    const key = keyOf(sha256);
    const stored = await this.#o.store.head(key);
    if (!stored) return null;
    return { sha256, size_bytes, files, key, stored_bytes: stored.size_bytes, reused: true, unchanged: true };
  }

  async #remember(cache_file: string, listing: Listing, of: Omit<Made, 'left_out' | 'secrets_left_out'>) {
    const { left_out, secrets_left_out } = this;
    const { sha256, size_bytes, files } = of;
    const made = { sha256, size_bytes, files, left_out, secrets_left_out };
    await keepLook(lookFile(cache_file), this.#root, this.#rules, listing, this.#looked_at_ms, made);
  }

  async read(): Promise<Found> {
    const { tmp_dir, store, cache_file, signal } = this.#o;
    await mkdir(tmp_dir, { recursive: true });
    const path = join(tmp_dir, `snapshot-${process.pid}-${next_temporary++}.tar.zst`);
    let first = true;
    const prepare = async () => {
      if (!first) await this.#look();
      first = false;
      return this.#tarOrder();
    };
    try {
      const tar = await writeTarFile({ prepare, path, compress: 'zstd', signal });
      const { sha256, size_bytes, stored_bytes, files } = tar;
      const key = keyOf(sha256);
      const put = await store.putFile(key, path);
      if (cache_file) {
        const listing = withoutGone({ paths: tar.paths, rows: tar.rows });
        const seen = fingerprint(listing, this.#looked_at_ms);
        await writeCache(cache_file, seen === null ? null : { fingerprint: seen, sha256, size_bytes, files });
        await this.#remember(cache_file, listing, { sha256, size_bytes, files });
      }
      return { sha256, size_bytes, files, key, stored_bytes, reused: put.existed, unchanged: false };
    } finally {
      await rm(path, { force: true });
    }
  }

  #tarOrder(): TarOrder {
    return {
      root: this.#root,
      prefix: '',
      ...this.#listing,
      copies: new Map(),
      extra: [],
      want_index: false,
      max_bytes: this.#o.limits.max_bytes,
    };
  }
}

const lookFile = (cache_file: string) => `${cache_file}.look`;

function keyOf(sha256: string): string {
  return `sources/${sha256}.tar.zst`;
}

/** Before anything is read; the writer counts again. */
function refuseTooLarge(listing: Listing, max_bytes: number): void {
  let size_bytes = END_BYTES + listing.paths.length * BLOCK;
  for (let at = 0; at < listing.rows.length; at += ROW.width) {
    if (listing.rows[at + ROW.kind] === KIND.file) size_bytes += paddedSize(listing.rows[at + ROW.size]!);
  }
  if (size_bytes > max_bytes) throw new TarTooLarge(size_bytes, max_bytes);
}

/** Words what went wrong while a tree was read for a caller who can do something about it. */
export function explain(error: unknown): unknown {
  if (error instanceof TreeUnreadable) {
    return new KilnError(
      'SNAPSHOT_FAILED',
      `The source could not be frozen: ${error.message}. Production is unchanged. Make it readable and still, or ` +
        'leave it out with .kilnignore, and publish again.',
      { details: { path: error.path, reason: error.reason }, cause: error },
    );
  }
  if (error instanceof TarTooLarge) {
    return new KilnError(
      'SOURCE_TOO_LARGE',
      `The source is ${megabytes(error.size_bytes)}, the limit is ${megabytes(error.max_bytes)}. Leave out what the ` +
        'build does not need with a .kilnignore file, or raise the limit.',
      { details: { size_bytes: error.size_bytes, max_bytes: error.max_bytes } },
    );
  }
  if (/^E[A-Z0-9]+$/.test(errno(error))) {
    return new KilnError(
      'STORAGE_FAILED',
      `The snapshot could not be written (${errno(error)}). Production is unchanged. Check free disk space and try again.`,
      { cause: error },
    );
  }
  return error;
}

function megabytes(size_bytes: number): string {
  return `${(size_bytes / 1e6).toFixed(1)} MB`;
}
