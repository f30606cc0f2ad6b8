/**
 * Compressed forms of static files, made when somebody first asks for one: a publish does not wait for them. Each is
 * made once for as long as it is kept, whoever asks and however often, in zlib's threads and by few of them, so that
 * strangers cannot make the edge work more than that: those who ask meanwhile, or too much, get the file as it is.
 */
import { availableParallelism } from 'node:os';
import { promisify } from 'node:util';
import { brotliCompress, constants, gzip } from 'node:zlib';
import type { StaticFile } from '../release/static-site.ts';
import type { Coding } from './coding.ts';
import { damaged, type FileCache } from './file-cache.ts';
import type { SiteLease } from './sites.ts';

const MIN_BYTES = 1024;
const MAX_BYTES = 10 * 1024 * 1024;
/** The rest of the threads read files. */
const MAX_RUNNING = Math.max(1, Math.min(2, availableParallelism() - 1));
const MAX_WAITING = 64;
/** A form that saves less is not worth its decompression. */
const WORTHWHILE = 0.95;
/** Kept in the place of a form that saves nothing. */
const NOT_WORTHWHILE = Buffer.alloc(0);

export class CompressedFiles {
  readonly #cache: FileCache;
  readonly #wait_ms: number;
  readonly #begun = new Map<string, Promise<Buffer>>();
  readonly #waiting: (() => void)[] = [];
  #running = 0;

  constructor(cache: FileCache, wait_ms: number) {
    this.#cache = cache;
    this.#wait_ms = wait_ms;
  }

  /** Is there a compressed form of files of this size? */
  has(file: StaticFile): boolean {
    return file.size >= MIN_BYTES && file.size <= MAX_BYTES;
  }

  /**
   * The compressed form; null when the file is to be sent as it is: it is not made yet and takes longer than a moment
   * (unless `must_wait`), or it saves nothing. Rejects with KilnError STORAGE_FAILED when the file is damaged.
   */
  async get(lease: SiteLease, file: StaticFile, coding: Coding, must_wait: boolean): Promise<Buffer | null> {
    const key = `${file.sha256}-${coding}`;
    const kept = this.#cache.get(key);
    const bytes = kept ?? (await this.#ask(key, lease, file, coding, must_wait));
    return bytes === NOT_WORTHWHILE ? null : bytes;
  }

  async #ask(
    key: string,
    lease: SiteLease,
    file: StaticFile,
    coding: Coding,
    must_wait: boolean,
  ): Promise<Buffer | null> {
    let making = this.#begun.get(key);
    if (making === undefined) {
      if (this.#waiting.length >= MAX_WAITING) return null;
      making = this.#make(key, lease.another(), file, coding).finally(() => this.#begun.delete(key));
      making.catch(() => {}); // told to whoever still waits
      this.#begun.set(key, making);
    }
    return must_wait ? making : within(this.#wait_ms, making);
  }

  async #make(key: string, lease: SiteLease, file: StaticFile, coding: Coding): Promise<Buffer> {
    try {
      if (this.#running >= MAX_RUNNING) await new Promise<void>((resolve) => this.#waiting.push(resolve));
      else this.#running++;
      try {
        const made = await compress(await readWhole(lease, file), coding);
        const bytes = made.length <= file.size * WORTHWHILE ? made : NOT_WORTHWHILE;
        this.#cache.keep(key, bytes);
        return bytes;
      } finally {
        // The place goes on to the one that waits the longest.
        const next = this.#waiting.shift();
        if (next === undefined) this.#running--;
        else next();
      }
    } finally {
      lease.release();
    }
  }
}

/** The digest is checked in a thread as well: of ten megabytes it takes as long as many requests. */
async function readWhole(lease: SiteLease, file: StaticFile): Promise<Buffer> {
  const bytes = await lease.site.readAll(file);
  const digest = await crypto.subtle.digest('SHA-256', bytes as Buffer<ArrayBuffer>);
  if (Buffer.from(digest).toString('hex') !== file.sha256) throw damaged(file);
  return bytes;
}

/** Most forms come in one piece of it: each piece is a turn of the event loop. */
const CHUNK_BYTES = 64 * 1024;

/**
 * Measured with a bundle of 387 KB: Brotli 5 makes 22% of it in 7.5 ms, Brotli 9 21% in 33 ms; gzip 6 makes 23.5% in
 * 8.2 ms, gzip 9 23.4% in 10.7 ms. Zstandard lies between the two, and who has it has Brotli as well.
 */
async function compress(bytes: Buffer, coding: Coding): Promise<Buffer> {
  const chunkSize = Math.min(bytes.length, CHUNK_BYTES);
  const made =
    coding === 'gzip'
      ? await promisify(gzip)(bytes, { level: 6, chunkSize })
      : await promisify(brotliCompress)(bytes, {
          params: {
            [constants.BROTLI_PARAM_QUALITY]: 5,
            [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length,
          },
          chunkSize,
        });
  // Without the unused rest of zlib's memory, which would be kept with it.
  const exact = Buffer.allocUnsafeSlow(made.length);
  made.copy(exact);
  return exact;
}

/** Null when it takes longer. */
async function within<T>(ms: number, promise: Promise<T>): Promise<T | null> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<null>((resolve) => {
    timer = setTimeout(() => resolve(null), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
