import { createReadStream } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { MessageChannel } from 'node:worker_threads';
import { createGunzip, constants as zlib } from 'node:zlib';
import { KilnError } from '../domain/errors.ts';
import type { Extracted } from './extract-thread.ts';
import { invalidArchive } from './tar-reader.ts';
import { runTask } from './threads.ts';
import type { UnpackLimits } from './unpack.ts';
import { isSkippable, zstdDecoded } from './zstd.ts';

/** A stored archive is not what its key says, or cannot even be read as one. Its code is STORAGE_FAILED. */
export class DigestMismatch extends KilnError {
  readonly expected: string;
  /** Null when the archive was too broken to have one. */
  readonly actual: string | null;
  constructor(expected: string, actual: string | null, cause?: unknown) {
    super(
      'STORAGE_FAILED',
      `The stored archive ${expected.slice(0, 12)}… is corrupt. Check the disk or object store; publish again to replace it.`,
      { details: { expected, actual }, cause },
    );
    this.name = 'DigestMismatch';
    this.expected = expected;
    this.actual = actual;
  }
}

export interface ExtractOptions {
  /** A path or the bytes: tar, tar.gz or tar.zst, told apart by their first bytes. */
  input: string | Readable;
  /** Made when it is not there; what is there stays, except files of the same name. */
  into: string;
  /**
   * A folder in `into`, by its path from there without links: entries go below it. Unlike `into`, which nobody else may
   * replace, it is reached one name at a time and never through a link, whatever takes its place meanwhile.
   */
  below?: string;
  /** `max_bytes` bounds the uncompressed tar, `max_files` its files and folders. */
  limits: UnpackLimits;
  /** Only entries below it are unpacked, without it (for example 'workspace/'). */
  strip_prefix?: string;
  /** Digest the uncompressed tar must have. It is known at the end: on a mismatch, remove `into`. */
  expect_sha256?: string;
  signal?: AbortSignal;
}

const MAX_IN_FLIGHT_BYTES = 4 * 1024 * 1024;
const PIECE_BYTES = 256 * 1024;
/** More window than the largest level of zstd asks for is only asked for by a bomb. */
const MAX_ZSTD_WINDOW_LOG = 27;

/**
 * Unpacks an archive that may be hostile (see unpack.ts for what is refused). Whatever fails, `into` may hold a part.
 * Modes become 0755 or 0644 by the owner's executable bit; owners and times are not restored.
 * @throws KilnError INVALID_ARCHIVE, SOURCE_TOO_LARGE, STORAGE_FAILED; DigestMismatch (a KilnError STORAGE_FAILED)
 */
export async function extractTar(o: ExtractOptions): Promise<Extracted> {
  const input =
    typeof o.input === 'string' ? createReadStream(o.input, { highWaterMark: PIECE_BYTES }) : o.input;
  // A stream may break before anybody reads it; the reading below then rejects, but unheard it would end the process.
  input.on('error', () => {});
  try {
    await mkdir(o.into, { recursive: true });
    const extracted = await sendToThread(o, decompressed(input));
    if (o.expect_sha256 && extracted.sha256 !== o.expect_sha256) {
      throw new DigestMismatch(o.expect_sha256, extracted.sha256);
    }
    return extracted;
  } catch (error) {
    const broken = error instanceof KilnError && error.code === 'INVALID_ARCHIVE';
    throw broken && o.expect_sha256 ? new DigestMismatch(o.expect_sha256, null, error) : error;
  } finally {
    input.destroy();
  }
}

async function sendToThread(o: ExtractOptions, pieces: AsyncIterable<Buffer>): Promise<Extracted> {
  const { port1, port2 } = new MessageChannel();
  let in_flight = 0;
  let wake: (() => void) | null = null;
  port1.on('message', (length: number) => {
    in_flight -= length;
    wake?.();
  });
  const { below = '', strip_prefix = '' } = o;
  const task = {
    kind: 'extract' as const,
    into: o.into,
    below,
    limits: o.limits,
    strip_prefix,
    umask: process.umask(),
    port: port2,
  };
  let ended = false;
  const done = runTask(task, [port2]).finally(() => {
    ended = true;
    wake?.();
  });
  done.catch(() => {}); // it is awaited below, unless reading the input fails first
  try {
    for await (const piece of pieces) {
      o.signal?.throwIfAborted();
      in_flight += piece.length;
      port1.postMessage(piece);
      while (in_flight > MAX_IN_FLIGHT_BYTES && !ended) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      if (ended) break; // the reason is in `done`
    }
    port1.postMessage(null);
    return await done;
  } finally {
    port1.close();
    await done.catch(() => {}); // the thread has let go of `into`
  }
}

/** The uncompressed tar. The first bytes say what it is; nothing is guessed from a file's name. */
export async function* decompressed(input: Readable): AsyncGenerator<Buffer> {
  const pieces = input[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  const first: Buffer[] = [];
  let known = 0;
  while (known < 6) {
    const next = await pieces.next();
    if (next.done) break;
    first.push(next.value);
    known += next.value.length;
  }
  const magic = Buffer.concat(first);
  const all = rejoined(magic, pieces);
  const decode = decoderFor(magic);
  if (!decode) return yield* all;
  try {
    yield* decode(Readable.from(all, { objectMode: false }));
  } catch (error) {
    if (!String((error as NodeJS.ErrnoException).code).match(/^(Z_|ZSTD_|ERR_ZSTD|ERR_ZLIB)/)) throw error;
    throw invalidArchive(`The archive is damaged (${(error as Error).message})`);
  }
}

async function* rejoined(first: Buffer, rest: AsyncIterator<Buffer>): AsyncGenerator<Buffer> {
  if (first.length > 0) yield first;
  for (let next = await rest.next(); !next.done; next = await rest.next()) yield next.value;
}

function decoderFor(magic: Buffer): ((input: Readable) => Readable) | null {
  const starts = (...bytes: number[]) => bytes.every((byte, i) => magic[i] === byte);
  if (starts(0x1f, 0x8b)) {
    return (input) => {
      const decoder = createGunzip({ chunkSize: PIECE_BYTES });
      return input.on('error', (error) => decoder.destroy(error)).pipe(decoder);
    };
  }
  const is_skippable = magic.length >= 4 && isSkippable(magic.readUInt32LE());
  if (is_skippable || starts(0x28, 0xb5, 0x2f, 0xfd)) {
    const params = { [zlib.ZSTD_d_windowLogMax]: MAX_ZSTD_WINDOW_LOG };
    return (input) => zstdDecoded(input, { chunkSize: PIECE_BYTES, params });
  }
  const foreign = starts(0x50, 0x4b)
    ? 'zip'
    : starts(0x42, 0x5a, 0x68)
      ? 'bzip2'
      : starts(0xfd, 0x37, 0x7a)
        ? 'xz'
        : null;
  if (foreign) throw invalidArchive(`The archive is ${foreign}; send a tar, tar.gz or tar.zst`);
  return null;
}
