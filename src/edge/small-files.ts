/** Small static files kept in memory by their digest, so never stale; the least recently used go first. */
import { createHash } from 'node:crypto';
import { KilnError } from '../domain/errors.ts';
import type { StaticFile, StaticSite } from '../release/static-site.ts';

export class SmallFiles {
  readonly #max_bytes: number;
  /** By SHA-256, least recently used first. */
  readonly #files = new Map<string, Buffer>();
  #bytes = 0;

  constructor(max_bytes: number) {
    this.#max_bytes = max_bytes;
  }

  get(sha256: string): Buffer | undefined {
    const bytes = this.#files.get(sha256);
    if (bytes === undefined) return undefined;
    this.#files.delete(sha256);
    this.#files.set(sha256, bytes);
    return bytes;
  }

  /** Reads the file, checks its digest and keeps it. Rejects with KilnError STORAGE_FAILED when it is damaged. */
  async read(site: StaticSite, file: StaticFile): Promise<Buffer> {
    const bytes = await site.readAll(file);
    if (createHash('sha256').update(bytes).digest('hex') !== file.sha256) {
      throw new KilnError(
        'STORAGE_FAILED',
        `The stored bytes of ${file.path} do not have their digest; publish again.`,
      );
    }
    this.#keep(file.sha256, bytes);
    return bytes;
  }

  #keep(sha256: string, bytes: Buffer): void {
    if (this.#files.has(sha256) || bytes.length > this.#max_bytes) return;
    this.#files.set(sha256, bytes);
    this.#bytes += bytes.length;
    for (const [oldest, old] of this.#files) {
      if (this.#bytes <= this.#max_bytes) break;
      this.#files.delete(oldest);
      this.#bytes -= old.length;
    }
  }
}
