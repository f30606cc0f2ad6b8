import { createWriteStream } from 'node:fs';
import { rm } from 'node:fs/promises';
import { finished, pipeline } from 'node:stream/promises';
import { setTimeout as pause } from 'node:timers/promises';
import { MessageChannel } from 'node:worker_threads';
import { createGzip, createZstdCompress, constants as zlib } from 'node:zlib';
import { sumOfFiles } from './listing.ts';
import { type FullSlab, freeSlab, giveUp, makeSlabs, type Slabs, viewSlab } from './slabs.ts';
import type { TarSummary, TarTask } from './tar-writer.ts';
import { runTask } from './threads.ts';
import { TreeChanged, TreeUnreadable } from './tree.ts';

const MAX_ATTEMPTS = 5;
const BACKOFF_MS = 20;
const MIN_BYTES_FOR_DIGEST_THREAD = 16 * 1024 * 1024;

export type Compression = 'none' | 'zstd' | 'gzip';

/** Gives each slab to `consume`, one after the other; a slab may be reused once its promise resolves. */
export type SlabConsumer = (slab: Buffer) => Promise<void>;

/** Runs one tar through a thread. Rejects with what the thread threw, or with the error of `consume`. */
export async function streamTar(
  of: Omit<TarTask, 'want_sha256'>,
  consume: SlabConsumer,
  signal?: AbortSignal,
): Promise<TarSummary> {
  const slabs = makeSlabs();
  const hasher = sumOfFiles(of.rows) >= MIN_BYTES_FOR_DIGEST_THREAD ? startDigest(slabs) : null;
  const { port1, port2 } = new MessageChannel();
  let failed: { error: unknown } | null = null;
  const abandon = (error: unknown) => {
    failed ??= { error };
    giveUp(slabs);
  };
  const onAbort = () => abandon(signal?.reason);
  signal?.addEventListener('abort', onAbort);
  if (signal?.aborted) onAbort();
  let consumed = Promise.resolve();
  const drained = new Promise<void>((resolve) => {
    port1.on('message', (message: 'end' | FullSlab) => {
      if (message === 'end') {
        consumed.then(resolve);
        return;
      }
      const hashed = hasher?.update(message);
      hashed?.catch(() => {}); // awaited below, unless consuming fails first
      consumed = consumed
        .then(() => (failed ? undefined : consume(viewSlab(slabs, message))))
        .then(() => hashed)
        .then(() => freeSlab(slabs, message.slot))
        .catch(abandon);
    });
  });
  try {
    const tar: TarTask = { ...of, want_sha256: hasher === null };
    const summary = await runTask({ kind: 'tar', tar, slabs, port: port2 }, [port2]);
    await drained;
    if (failed) throw (failed as { error: unknown }).error;
    return hasher ? { ...summary, sha256: await hasher.end() } : summary;
  } catch (error) {
    throw failed ? (failed as { error: unknown }).error : error;
  } finally {
    signal?.removeEventListener('abort', onAbort);
    port1.close();
    await consumed; // nobody touches the slabs any more
    hasher?.close();
  }
}

/** Hashing takes a third of the reader's time; on a large tree it is worth a thread. */
function startDigest(slabs: Slabs) {
  const { port1, port2 } = new MessageChannel();
  const waiting = new Map<number, () => void>();
  port1.on('message', (slot: number) => waiting.get(slot)?.());
  const digest = runTask({ kind: 'digest', slabs, port: port2 }, [port2]);
  const broken = digest.then(() => new Promise<never>(() => {}));
  broken.catch(() => {}); // also seen by every race below
  return {
    update(slab: FullSlab): Promise<void> {
      const done = new Promise<void>((resolve) => waiting.set(slab.slot, resolve));
      port1.postMessage(slab);
      return Promise.race([done, broken]);
    },
    end(): Promise<string> {
      port1.postMessage('end');
      return digest;
    },
    close: () => port1.close(),
  };
}

/** A consumer that writes the tar, compressed or not, to a new file; call `end` after the last slab. */
function fileConsumer(path: string, compress: Compression) {
  const file = createWriteStream(path, { flags: 'wx', highWaterMark: 1024 * 1024 });
  // What takes the slabs must say "written" only when it no longer needs their memory; both of these do.
  const compressed = compress === 'none' ? null : compress === 'zstd' ? zstd() : gzip();
  const entrance = compressed ?? file;
  const written = compressed ? pipeline(compressed, file) : finished(file);
  const broken = written.then(() => new Promise<never>(() => {}));
  broken.catch(() => {}); // also seen by every race below
  const consume: SlabConsumer = (slab) =>
    Promise.race([new Promise<void>((resolve) => entrance.write(slab, () => resolve())), broken]);
  const end = async () => {
    entrance.end();
    await written;
    return file.bytesWritten;
  };
  const abandon = async () => {
    file.destroy();
    await written.catch(() => {});
    await rm(path, { force: true });
  };
  return { consume, end, abandon };
}

/** Level 1 keeps pace with the reading; higher ones would be what a publish waits for. */
function zstd() {
  return createZstdCompress({ chunkSize: 1024 * 1024, params: { [zlib.ZSTD_c_compressionLevel]: 1 } });
}

/** What OCI layers are by custom. Node's header has no time and no name, so equal input gives equal bytes. */
export function gzip() {
  return createGzip({ chunkSize: 1024 * 1024, level: 1 });
}

/**
 * Writes a tar to the new file `path`. A tree that changes in a way one more read cannot settle is read from the
 * start again: `prepare` looks at it anew each time. Whatever fails, the file is gone afterwards.
 */
export async function writeTarFile(o: {
  prepare: () => Promise<Omit<TarTask, 'want_sha256'>>;
  path: string;
  compress: Compression;
  signal?: AbortSignal | undefined;
}): Promise<TarSummary & { stored_bytes: number; paths: string[] }> {
  for (let attempt = 1; ; attempt++) {
    const out = fileConsumer(o.path, o.compress);
    try {
      const task = await o.prepare();
      const summary = await streamTar(task, out.consume, o.signal);
      return { ...summary, stored_bytes: await out.end(), paths: task.paths };
    } catch (error) {
      await out.abandon();
      if (!(error instanceof TreeChanged)) throw error;
      if (attempt === MAX_ATTEMPTS) {
        throw new TreeUnreadable(error.path, `kept changing while it was read (${MAX_ATTEMPTS} attempts)`);
      }
      await pause(BACKOFF_MS * 2 ** attempt, undefined, { signal: o.signal });
    }
  }
}
