/** Layers that Kiln writes: a tar, checked on the way, gzipped into a file; if asked, its times are cut to an epoch. */
import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { rm } from 'node:fs/promises';
import { type Readable, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { paddedSize } from '../../source/tar-format.ts';
import type { TarReceiver } from '../../source/tar-reader.ts';
import { encodeLayerEntry, layerEntry, PADDING, TAR_END, throughTar } from './layer-tar.ts';

export interface LayerFile {
  /** Of the file. */
  digest: string;
  size_bytes: number;
  /** Of the uncompressed tar. */
  diff_id: string;
}

/** `as_is`: the tar's bytes stay, so its diff_id does. Else see below; without an epoch, times stay. */
export type Rewriting = 'as_is' | { epoch_s: number | null };

/**
 * Writes a layer, compressed or not, gzipped into the new file `path`. Rewritten, it has every entry in one form of
 * header, times no later than the epoch, and ends where the archive ends; contents, names, owners, modes and extended
 * attributes stay.
 * @throws KilnError INVALID_ARCHIVE; the file is gone then
 */
export async function writeLayer(
  layer: Readable,
  path: string,
  o: { max_bytes: number; rewrite: Rewriting },
): Promise<LayerFile> {
  const tar_hash = createHash('sha256');
  const file_hash = createHash('sha256');
  const file = createWriteStream(path, { flags: 'wx', highWaterMark: 1024 * 1024 });
  try {
    const tar =
      o.rewrite === 'as_is'
        ? asItIs(layer, o.max_bytes)
        : rewritten(layer, o.max_bytes, o.rewrite.epoch_s ?? Number.POSITIVE_INFINITY);
    const gzip = createGzip({ chunkSize: 1024 * 1024, level: 1 }); // no time and no name in it: equal input, equal bytes
    await pipeline(tar, hashing(tar_hash), gzip, hashing(file_hash), file);
    return {
      digest: `sha256:${file_hash.digest('hex')}`,
      size_bytes: file.bytesWritten,
      diff_id: `sha256:${tar_hash.digest('hex')}`,
    };
  } catch (error) {
    await rm(path, { force: true });
    throw error;
  }
}

function hashing(hash: ReturnType<typeof createHash>): Transform {
  return new Transform({
    transform(chunk, _, done) {
      hash.update(chunk);
      done(null, chunk);
    },
  });
}

/** Digest of a layer's uncompressed tar, which is read as one on the way. */
export async function diffIdOf(layer: Readable, max_bytes: number): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of asItIs(layer, max_bytes)) hash.update(chunk);
  return `sha256:${hash.digest('hex')}`;
}

async function* asItIs(layer: Readable, max_bytes: number): AsyncGenerator<Buffer> {
  const out: Buffer[] = [];
  const receiver = { entry: () => {}, data: () => {}, entryEnd: () => {} };
  yield* throughTar(layer, receiver, { out, max_bytes, on_chunk: (chunk) => out.push(chunk) });
}

async function* rewritten(layer: Readable, max_bytes: number, epoch_s: number): AsyncGenerator<Buffer> {
  const out: Buffer[] = [];
  let size = 0;
  const receiver: TarReceiver = {
    entry(plain, raw) {
      const entry = layerEntry(plain, raw);
      size = entry.size;
      out.push(encodeLayerEntry({ ...entry, mtime_s: Math.min(entry.mtime_s, epoch_s) }));
    },
    data: (piece) => void out.push(piece),
    entryEnd: () => void out.push(PADDING.subarray(0, paddedSize(size) - size)),
  };
  yield* throughTar(layer, receiver, { out, max_bytes });
  yield TAR_END;
}
