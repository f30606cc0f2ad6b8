/** Static releases kept open between requests, the least recently used closed first. */
import { openStaticSite, type StaticSite } from '../release/static-site.ts';
import type { ObjectStore } from '../store/objects/port.ts';

/** A release held open; it is not closed before `release` was called. */
export interface SiteLease {
  site: StaticSite;
  release(): void;
  /** One more hold on it, with a release of its own. */
  another(): SiteLease;
}

interface Entry {
  opening: Promise<StaticSite>;
  site: StaticSite | null;
  users: number;
  evicted: boolean;
}

export class Sites {
  readonly #objects: ObjectStore;
  readonly #max: { bytes: number; open: number };
  /** By object key, least recently used first. */
  readonly #entries = new Map<string, Entry>();
  #bytes = 0;

  constructor(objects: ObjectStore, max: { bytes: number; open: number }) {
    this.#objects = objects;
    this.#max = max;
  }

  /** Rejects as `openStaticSite` does; a failure is not remembered. */
  async use(object_key: string, index_key: string): Promise<SiteLease> {
    const entry = this.#entry(object_key, index_key);
    entry.users++;
    try {
      const site = entry.site ?? (await entry.opening);
      return this.#lease(entry, site);
    } catch (error) {
      entry.users--;
      throw error;
    }
  }

  #lease(entry: Entry, site: StaticSite): SiteLease {
    return {
      site,
      release: () => this.#release(entry),
      another: () => {
        entry.users++;
        return this.#lease(entry, site);
      },
    };
  }

  /** Lets go of sites of which something was stored anew since they were opened. */
  async dropReplaced(): Promise<void> {
    for (const [key, entry] of [...this.#entries])
      if (entry.site && (await entry.site.isReplaced()) && this.#entries.get(key) === entry) this.#evict(key);
  }

  close(): void {
    for (const key of [...this.#entries.keys()]) this.#evict(key);
  }

  #entry(object_key: string, index_key: string): Entry {
    const known = this.#entries.get(object_key);
    if (known !== undefined) {
      this.#entries.delete(object_key);
      this.#entries.set(object_key, known);
      return known;
    }
    const opening = openStaticSite(this.#objects, object_key, index_key);
    const entry: Entry = { opening, site: null, users: 0, evicted: false };
    this.#entries.set(object_key, entry);
    opening.then(
      (site) => this.#opened(entry, site),
      () => this.#entries.get(object_key) === entry && this.#entries.delete(object_key),
    );
    return entry;
  }

  #opened(entry: Entry, site: StaticSite): void {
    entry.site = site;
    if (entry.evicted) {
      this.#closeIfUnused(entry);
      return;
    }
    this.#bytes += site.memory_bytes;
    for (const [key, other] of this.#entries) {
      if (this.#bytes <= this.#max.bytes && this.#entries.size <= this.#max.open) break;
      if (other !== entry) this.#evict(key);
    }
  }

  #evict(key: string): void {
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    this.#entries.delete(key);
    entry.evicted = true;
    if (entry.site !== null) this.#bytes -= entry.site.memory_bytes;
    this.#closeIfUnused(entry);
  }

  #release(entry: Entry): void {
    entry.users--;
    this.#closeIfUnused(entry);
  }

  #closeIfUnused(entry: Entry): void {
    if (entry.evicted && entry.users === 0) void entry.site?.close();
  }
}
