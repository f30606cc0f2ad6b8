/** Layers that Kiln writes: a tar, checked on the way, gzipped into a file; with the option, its times are cut to an epoch. */
import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { rm } from 'node:fs/promises';
import { type Readable, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { paddedSize } from '../../source/tar-format.ts';
import { gzip } from '../../source/tar-pipe.ts';
import type { TarReceiver } from '../../source/tar-reader.ts';
import { encodeLayerEntry, layerEntry, PADDING, TAR_END, throughTar } from './layer-tar.ts';

export interface LayerFile {
  /** Of the file. */
  digest: string;
  size_bytes: number;
  /** Of the uncompressed tar. */
  diff_id: string;
}

/**
 * Rewrites a layer, compressed or not, into the new file `path`: every entry in one form of header, times no later than
 * `epoch_s`, ended where the archive ends. Contents, names, owners, modes and extended attributes stay.
 * @throws KilnError INVALID_ARCHIVE; the file is gone then
 */
export async function writeLayer(
  layer: Readable,
  path: string,
  o: { max_bytes: number; epoch_s?: number },
): Promise<LayerFile> {
  const tar_hash = createHash('sha256');
  const file_hash = createHash('sha256');
  const file = createWriteStream(path, { flags: 'wx', highWaterMark: 1024 * 1024 });
  try {
    await pipeline(rewritten(layer, o), hashing(tar_hash), gzip(), hashing(file_hash), file);
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

async function* rewritten(
  layer: Readable,
  { max_bytes, epoch_s = Number.POSITIVE_INFINITY }: { max_bytes: number; epoch_s?: number },
): AsyncGenerator<Buffer> {
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
