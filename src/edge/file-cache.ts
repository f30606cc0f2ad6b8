/**
 * Bytes of static files kept in memory: small files, and the compressed forms of those that have one. By digest, so
 * never stale and the same for every release that has them; the least recently used go first.
 */
import { createHash } from 'node:crypto';
import { KilnError } from '../domain/errors.ts';
import type { StaticFile, StaticSite } from '../release/static-site.ts';

/** Of a Map entry with its key and the Buffer around the bytes. */
const ENTRY_BYTES = 300;

export class FileCache {
  readonly #max_bytes: number;
  /** Least recently used first. */
  readonly #kept = new Map<string, Buffer>();
  #bytes = 0;

  constructor(max_bytes: number) {
    this.#max_bytes = max_bytes;
  }

  /** `key`: the digest of a file, or that with the name of a coding. */
  get(key: string): Buffer | undefined {
    const bytes = this.#kept.get(key);
    if (bytes === undefined) return undefined;
    this.#kept.delete(key);
    this.#kept.set(key, bytes);
    return bytes;
  }

  /** Reads the file, checks its digest and keeps it. Rejects with KilnError STORAGE_FAILED when it is damaged. */
  async read(site: StaticSite, file: StaticFile): Promise<Buffer> {
    const bytes = await site.readAll(file);
    if (createHash('sha256').update(bytes).digest('hex') !== file.sha256) throw damaged(file);
    this.keep(file.sha256, bytes);
    return bytes;
  }

  keep(key: string, bytes: Buffer): void {
    if (this.#kept.has(key) || bytes.length > this.#max_bytes) return;
    this.#kept.set(key, bytes);
    this.#bytes += ENTRY_BYTES + bytes.length;
    for (const [oldest, old] of this.#kept) {
      if (this.#bytes <= this.#max_bytes) break;
      this.#kept.delete(oldest);
      this.#bytes -= ENTRY_BYTES + old.length;
    }
  }
}

export function damaged(file: StaticFile): KilnError {
  return new KilnError(
    'STORAGE_FAILED',
    `The stored bytes of ${file.path} do not have their digest; publish again.`,
  );
}
