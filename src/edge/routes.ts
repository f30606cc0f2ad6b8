/**
 * The routing table of the edge. It follows the live table by notification and, because notifications may be lost,
 * by a periodic scan; a new table replaces the old one in one assignment, and only then its generation is
 * acknowledged. While the feed fails, the last table keeps serving.
 */
import type { RouteRow } from '../store/route.ts';

/** The narrow part of the store that the edge reads. */
export interface RouteFeed {
  read(): Promise<{ generation: number; rows: RouteRow[] }>;
  /** Calls back after every change; resolves to the way to stop that. */
  subscribe(on_change: () => void): Promise<() => Promise<void>>;
  /** Says that this edge serves `generation` from now on. */
  acknowledge(generation: number): Promise<void>;
}

export type Route = RouteRow;

/** Frozen view of one generation. */
export class RouteTable {
  readonly generation: number;
  readonly #by_host = new Map<string, Route>();
  readonly #redirects = new Map<string, string>();
  readonly instance_ids: ReadonlySet<string>;

  constructor(generation: number, rows: Route[], base_domain: string) {
    this.generation = generation;
    this.instance_ids = new Set(rows.flatMap((row) => row.instances.map((instance) => instance.id)));
    for (const row of rows) {
      this.#by_host.set(`${row.slug}.${row.host_label}.${base_domain}`.toLowerCase(), row);
    }
    // A custom host never takes over a host that is somebody's own.
    for (const row of rows) {
      for (const host of row.hosts ?? []) {
        const name = host.toLowerCase();
        if (!this.#by_host.has(name)) this.#by_host.set(name, row);
      }
    }
    for (const { from, to } of rows.flatMap((row) => row.redirects ?? [])) {
      if (!this.#by_host.has(from)) this.#redirects.set(from, to);
    }
  }

  /** `host` in lower case, without port. */
  find(host: string): Route | undefined {
    return this.#by_host.get(host);
  }

  /** The host that requests to `host` are sent on to (apex to www, or back). */
  redirectOf(host: string): string | undefined {
    return this.#redirects.get(host);
  }
}

export type Log = (level: 'info' | 'warn' | 'error', message: string, data?: Record<string, unknown>) => void;

export interface FollowOptions {
  feed: RouteFeed;
  base_domain: string;
  scan_interval_ms: number;
  /** For each call of the feed. */
  feed_timeout_ms: number;
  /** Called right after the swap, in the same tick. */
  on_swap: (table: RouteTable) => void;
  log: Log;
}

/** After a failure the feed is asked again this soon, then ever later up to the scan interval. */
const RETRY_MS = 250;
/** Older than any. */
export const UNREAD = -1;

export class RouteFollower {
  /** Generation -1 until the feed was read once; that of an install without any deployment is 0. */
  table: RouteTable;
  readonly #options: FollowOptions;
  readonly #waiters = new Set<{ generation: number; resolve: () => void }>();
  #running: Promise<number> | null = null;
  #next: Promise<number> | null = null;
  #acknowledged = -1;
  #failures = 0;
  #timer: NodeJS.Timeout | undefined;
  #unsubscribe: (() => Promise<void>) | null = null;
  #closed = false;

  constructor(options: FollowOptions) {
    this.#options = options;
    this.table = new RouteTable(UNREAD, [], options.base_domain);
  }

  /** Subscribes and reads once. Does not reject: a feed that fails is tried again until it works. */
  async start(): Promise<void> {
    await this.#scan();
  }

  /**
   * Reads the feed and swaps, and resolves to the generation served afterwards. Calls that come while a read runs
   * share one read that starts after it, so each caller gets a table at least as new as its call.
   */
  refresh(): Promise<number> {
    if (this.#running === null) {
      this.#running = this.#refreshOnce().finally(() => {
        this.#running = null;
      });
      return this.#running;
    }
    this.#next ??= this.#running
      .catch(() => {})
      .then(() => {
        this.#next = null;
        return this.refresh();
      });
    return this.#next;
  }

  /** True once `generation` or a later one is served; false when that did not happen in time. */
  async waitFor(generation: number, timeout_ms: number): Promise<boolean> {
    if (this.table.generation >= generation) return true;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const waiter = { generation, resolve: () => resolve(true) };
    const timer = setTimeout(() => resolve(false), timeout_ms);
    this.#waiters.add(waiter);
    this.#refreshQuietly();
    return promise.finally(() => {
      clearTimeout(timer);
      this.#waiters.delete(waiter);
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#running?.catch(() => {});
    await this.#unsubscribe?.().catch(() => {});
  }

  async #refreshOnce(): Promise<number> {
    const { feed, feed_timeout_ms } = this.#options;
    const { generation, rows } = await within(feed_timeout_ms, feed.read());
    if (generation > this.table.generation) this.#swap(generation, rows);
    else if (generation < this.table.generation) {
      this.#options.log('warn', 'the feed offered an older route table; it was ignored', { generation });
    }
    if (this.#acknowledged < this.table.generation) {
      const served = this.table.generation;
      await within(feed_timeout_ms, feed.acknowledge(served));
      this.#acknowledged = served;
    }
    return this.table.generation;
  }

  #swap(generation: number, rows: Route[]): void {
    this.table = new RouteTable(generation, rows, this.#options.base_domain);
    this.#options.on_swap(this.table);
    for (const waiter of this.#waiters) if (waiter.generation <= generation) waiter.resolve();
  }

  /** One turn of the loop: subscribe if not yet done, refresh, and come again. */
  async #scan(): Promise<void> {
    try {
      await this.#subscribe();
      await this.refresh();
      this.#succeeded();
    } catch (error) {
      this.#failed(error);
    }
    this.#schedule();
  }

  #schedule(): void {
    clearTimeout(this.#timer);
    if (this.#closed) return;
    const { scan_interval_ms } = this.#options;
    const pause_ms = this.#failures === 0 ? scan_interval_ms : RETRY_MS * 2 ** Math.min(this.#failures, 8);
    this.#timer = setTimeout(() => void this.#scan(), Math.min(pause_ms, scan_interval_ms));
    this.#timer.unref();
  }

  async #subscribe(): Promise<void> {
    if (this.#unsubscribe !== null) return;
    const subscribing = this.#options.feed.subscribe(() => this.#refreshQuietly());
    try {
      this.#unsubscribe = await within(this.#options.feed_timeout_ms, subscribing);
    } catch (error) {
      // Should it come after all, nobody waits for it any more.
      void subscribing.then((unsubscribe) => unsubscribe()).catch(() => {});
      throw error;
    }
  }

  #refreshQuietly(): void {
    if (this.#closed) return;
    this.refresh().then(
      () => this.#succeeded(),
      (error) => {
        this.#failed(error);
        this.#schedule();
      },
    );
  }

  #succeeded(): void {
    if (this.#failures > 0) this.#options.log('info', 'the route table is followed again');
    this.#failures = 0;
  }

  /** Told once per streak: the scan comes every few seconds. */
  #failed(error: unknown): void {
    if (this.#failures++ > 0 || this.#closed) return;
    const { generation } = this.table;
    const data = { generation, error: error instanceof Error ? error.message : String(error) };
    this.#options.log('warn', 'the route table could not be read; the last one keeps serving', data);
  }
}

async function within<T>(timeout_ms: number, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${timeout_ms} ms`)), timeout_ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
