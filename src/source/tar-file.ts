import { type FileHandle, open, rm } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import { type Compression, endDigest, giveUp, type LaneResult, makeLanes } from './lanes.ts';
import { sumOfFiles } from './listing.ts';
import { orderEntries, shareOut } from './tar-plan.ts';
import type { TarSummary, TarTask } from './tar-writer.ts';
import { runTask, SPREAD } from './threads.ts';
import { TreeChanged, TreeUnreadable } from './tree.ts';

const MAX_ATTEMPTS = 5;
const BACKOFF_MS = 20;
/** Below this, more threads cost more than they save. */
const MIN_BYTES_FOR_LANES = 16 * 1024 * 1024;

export type TarOrder = Omit<TarTask, 'entries'>;

export interface WrittenTar extends TarSummary {
  /** Of the uncompressed tar. */
  sha256: string;
  stored_bytes: number;
  paths: string[];
  /** The rows as they were when the content was read; vanished paths have kind `gone`. */
  rows: Float64Array;
}

/**
 * Writes a tar to the new file `path`. A tree that changes in a way one more read cannot settle is read from the
 * start again: `prepare` looks at it anew each time. Whatever fails, the file is gone afterwards.
 */
export async function writeTarFile(o: {
  prepare: () => Promise<TarOrder>;
  path: string;
  compress: Compression;
  signal?: AbortSignal | undefined;
}): Promise<WrittenTar> {
  for (let attempt = 1; ; attempt++) {
    const file = await open(o.path, 'wx');
    try {
      return await writeOnce(await o.prepare(), file, o.compress, o.signal);
    } catch (error) {
      await rm(o.path, { force: true });
      if (!(error instanceof TreeChanged)) throw error;
      if (attempt === MAX_ATTEMPTS) {
        throw new TreeUnreadable(error.path, `kept changing while it was read (${MAX_ATTEMPTS} attempts)`);
      }
    } finally {
      await file.close();
    }
    await pause(BACKOFF_MS * 2 ** attempt, undefined, { signal: o.signal });
  }
}

async function writeOnce(
  order: TarOrder,
  file: FileHandle,
  compress: Compression,
  signal?: AbortSignal,
): Promise<WrittenTar> {
  signal?.throwIfAborted();
  const tar: TarTask = { ...order, rows: shared(order.rows), entries: orderEntries(order) };
  const shares = shareOut(tar);
  const count = sumOfFiles(tar.rows) >= MIN_BYTES_FOR_LANES ? Math.min(SPREAD, shares.length) : 1;
  const lanes = makeLanes(file.fd, compress, count);
  let failure: { error: unknown } | null = null;
  const abandon = (error: unknown) => {
    failure ??= { error };
    giveUp(lanes);
  };
  const onAbort = () => abandon(signal?.reason);
  signal?.addEventListener('abort', onAbort);
  const alone = count === 1;
  const digest = alone ? null : runTask({ kind: 'digest', lanes });
  digest?.catch(abandon);
  const results: LaneResult[] = [];
  const work = Array.from({ length: count }, async (_, lane) => {
    results.push(await runTask({ kind: 'lane', tar, shares, lanes, lane, alone }));
  });
  await Promise.all(work.map((lane) => lane.catch(abandon)));
  endDigest(lanes);
  signal?.removeEventListener('abort', onAbort);
  const digested = await digest?.catch(() => '');
  if (failure) throw (failure as { error: unknown }).error;
  const sha256 = digested ?? results[0]!.sha256!;
  return { ...inOrder(results), sha256, stored_bytes: lanes.position[1]!, paths: tar.paths, rows: tar.rows };
}

/** One summary of the shares'. */
function inOrder(results: LaneResult[]): TarSummary {
  const whole: TarSummary = { size_bytes: 0, file_bytes: 0, files: 0, index: [] };
  const parts = results.flatMap(({ parts }) => parts).sort((a, b) => a.share - b.share);
  for (const { size_bytes, file_bytes, files, index } of parts) {
    for (const entry of index) whole.index.push({ ...entry, offset: whole.size_bytes + entry.offset });
    whole.size_bytes += size_bytes;
    whole.file_bytes += file_bytes;
    whole.files += files;
  }
  return whole;
}

/** Every lane writes the rows of its own paths. */
function shared(rows: Float64Array): Float64Array {
  const copy = new Float64Array(new SharedArrayBuffer(rows.byteLength));
  copy.set(rows);
  return copy;
}
