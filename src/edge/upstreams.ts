/**
 * The instances that requests are sent to: each with its own connections, so that they can be closed when it is
 * drained, and with the count of requests in flight.
 *
 * The count goes up in the same tick as the table lookup that chose the instance (`pick`), and down when the answer
 * is over. So once a table without an instance is in force and its count is 0, no request can reach it any more:
 * that is what makes a drain safe.
 */
import http from 'node:http';
import type { Duplex } from 'node:stream';
import type { EdgeLimits } from './limits.ts';
import type { Route } from './routes.ts';

/** One request's hold on an instance. `release` may be called more than once. */
export interface Lease {
  upstream: Upstream;
  release(): void;
}

export class Upstream {
  readonly id: string;
  readonly host: string;
  readonly port: number;
  readonly agent: http.Agent;
  in_flight = 0;
  /** Raw connections of upgraded requests, both ends. */
  readonly tunnels = new Set<Duplex>();
  /** Chosen last until then, because it refused a connection. Milliseconds of performance.now(). */
  avoid_until = 0;

  constructor(id: string, host: string, port: number, upstream_idle_ms: number) {
    this.id = id;
    this.host = host;
    this.port = port;
    this.agent = new http.Agent({ keepAlive: true, timeout: upstream_idle_ms, scheduling: 'lifo' });
  }

  closeIdle(): void {
    for (const sockets of Object.values(this.agent.freeSockets)) {
      for (const socket of sockets ?? []) socket.destroy();
    }
  }
}

const AVOID_REFUSING_MS = 1000;

/** Calls `connected` once the request's connection stands; fails the request when that takes longer than `timeout_ms`. */
export function whenConnected(outgoing: http.ClientRequest, timeout_ms: number, connected: () => void): void {
  outgoing.once('socket', (socket) => {
    if (!socket.connecting) return connected();
    const timer = setTimeout(() => outgoing.destroy(new Error('connecting took too long')), timeout_ms);
    outgoing.once('close', () => clearTimeout(timer));
    socket.once('connect', () => {
      clearTimeout(timer);
      connected();
    });
  });
}

export type UpstreamLimits = Pick<EdgeLimits, 'upstream_idle_ms' | 'instance_connections'>;

export class Upstreams {
  readonly #limits: UpstreamLimits;
  readonly #by_id = new Map<string, Upstream>();
  readonly #waiters = new Map<string, Set<() => void>>();
  #live: ReadonlySet<string> = new Set();
  #turn = 0;

  constructor(limits: UpstreamLimits) {
    this.#limits = limits;
  }

  /**
   * Chooses the instance of a route with the fewest requests in flight (in turn among equals, those that just
   * refused a connection last) and counts the request. Null when none is left that was not tried and has room.
   */
  pick(route: Route, tried?: ReadonlySet<string>): Lease | null {
    const { instances } = route;
    const first = this.#turn++;
    const now = performance.now();
    let best: Upstream | null = null;
    let best_load = Number.POSITIVE_INFINITY;
    for (let i = 0; i < instances.length; i++) {
      const instance = instances[(first + i) % instances.length]!;
      if (tried?.has(instance.id)) continue;
      const upstream = this.#upstream(instance);
      if (upstream.in_flight >= this.#limits.instance_connections) continue;
      const load = upstream.in_flight + (upstream.avoid_until > now ? 1e6 : 0);
      if (load < best_load) [best, best_load] = [upstream, load];
    }
    return best && this.#lease(best);
  }

  refused(upstream: Upstream): void {
    upstream.avoid_until = performance.now() + AVOID_REFUSING_MS;
  }

  inFlight(instance_id: string): number {
    return this.#by_id.get(instance_id)?.in_flight ?? 0;
  }

  /** True once nothing is in flight to the instance; false when that took longer than `timeout_ms`. */
  async onIdle(instance_id: string, timeout_ms: number): Promise<boolean> {
    if (this.inFlight(instance_id) === 0) return true;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const wake = (): void => resolve(true);
    const waiters = this.#waiters.get(instance_id) ?? new Set();
    this.#waiters.set(instance_id, waiters.add(wake));
    const timer = setTimeout(() => resolve(false), timeout_ms);
    return promise.finally(() => {
      clearTimeout(timer);
      waiters.delete(wake);
      if (waiters.size === 0) this.#waiters.delete(instance_id);
    });
  }

  /** Cuts WebSockets and closes unused connections; a request that waits for its answer is left alone. */
  closeConnections(instance_id: string): void {
    const upstream = this.#by_id.get(instance_id);
    if (upstream === undefined) return;
    for (const tunnel of upstream.tunnels) tunnel.destroy();
    upstream.closeIdle();
  }

  /** Forgets the instances that are in no table any more, now or as soon as they are idle. */
  keepOnly(live: ReadonlySet<string>): void {
    this.#live = live;
    for (const upstream of this.#by_id.values()) this.#forgetIfUnused(upstream);
  }

  closeTunnels(): void {
    for (const upstream of this.#by_id.values()) for (const tunnel of upstream.tunnels) tunnel.destroy();
  }

  close(): void {
    for (const upstream of this.#by_id.values()) upstream.agent.destroy();
  }

  #upstream(instance: { id: string; host: string; port: number }): Upstream {
    const known = this.#by_id.get(instance.id);
    if (known?.host === instance.host && known.port === instance.port) return known;
    const upstream = new Upstream(instance.id, instance.host, instance.port, this.#limits.upstream_idle_ms);
    this.#by_id.set(instance.id, upstream);
    return upstream;
  }

  #lease(upstream: Upstream): Lease {
    upstream.in_flight++;
    let held = true;
    const release = (): void => {
      if (!held) return;
      held = false;
      if (--upstream.in_flight > 0 || this.inFlight(upstream.id) > 0) return;
      for (const wake of this.#waiters.get(upstream.id) ?? []) wake();
      this.#forgetIfUnused(upstream);
    };
    return { upstream, release };
  }

  #forgetIfUnused(upstream: Upstream): void {
    if (upstream.in_flight > 0 || this.#live.has(upstream.id)) return;
    upstream.closeIdle();
    if (this.#by_id.get(upstream.id) === upstream) this.#by_id.delete(upstream.id);
  }
}
