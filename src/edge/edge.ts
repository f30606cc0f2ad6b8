/**
 * The edge: what the world talks to. It finds the route by host name in the table in force and answers from one
 * release: a file of a static one, or whatever an instance of a dynamic one says. It reads the live table and
 * object storage; nothing calls it to change what it serves.
 */
import http, { type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { ObjectStore } from '../store/objects/port.ts';
import { CompressedFiles } from './compressed-files.ts';
import { cut, cutIfStuck } from './connection.ts';
import { FileCache } from './file-cache.ts';
import { DEFAULT_LIMITS, type EdgeLimits } from './limits.ts';
import { type EdgeError, type Redirect, sendError, sendRedirect } from './pages.ts';
import { type ProxyContext, proxy } from './proxy.ts';
import { type Log, type Route, type RouteFeed, RouteFollower, type RouteTable, UNREAD } from './routes.ts';
import { Sites } from './sites.ts';
import { serveStatic } from './static.ts';
import { readTarget, type Target } from './target.ts';
import { isWebSocket, refuse, tunnel } from './tunnel.ts';
import { Turns } from './turns.ts';
import { type Lease, Upstreams } from './upstreams.ts';

export type { EdgeLimits } from './limits.ts';
export type { Log, Route, RouteFeed } from './routes.ts';

export interface EdgeOptions {
  host: string;
  /** 0 for any free one. */
  port: number;
  feed: RouteFeed;
  objects: ObjectStore;
  /** Deployments are `<slug>.<host label of the workspace>.<base_domain>`. */
  base_domain: string;
  limits?: Partial<EdgeLimits>;
  log: Log;
  /** HTML for the bare base domain; null for none. */
  index_page?: () => string | null;
  /** Only behind a proxy that sets the forwarding headers itself: keep its values. Default false. */
  trust_forwarded?: boolean;
}

export interface Edge {
  url: string;
  port: number;
  /** The generation of the live table that is served; -1 before it was read. */
  generation(): number;
  /** Reads the live table now; resolves to the generation served afterwards, rejects when the feed fails. */
  refresh(): Promise<number>;
  waitForGeneration(generation: number, timeout_ms: number): Promise<boolean>;
  /** Requests and WebSockets that an instance has not finished. */
  inFlight(instance_id: string): number;
  /** True once none is in flight; false when that took longer than `timeout_ms`. */
  onIdle(instance_id: string, timeout_ms: number): Promise<boolean>;
  /** Cuts WebSockets of a drained instance and closes its unused connections. */
  closeConnections(instance_id: string): void;
  /** Stops listening, lets requests in flight finish for `close_grace_ms`, then cuts. */
  close(): Promise<void>;
}

/** Listens and follows the feed. Rejects only when it cannot listen; a feed that fails is tried until it works. */
export async function startEdge(options: EdgeOptions): Promise<Edge> {
  const edge = new EdgeServer(options);
  await edge.start();
  return edge;
}

const CLOSE_SWEEP_MS = 20;

type Decision =
  | { kind: 'proxied'; target: Target; lease: Lease }
  | { kind: 'static'; target: Target; route: Route }
  | { kind: 'page'; page: string }
  | { kind: 'redirect'; to: Redirect }
  | { kind: 'error'; error: EdgeError };

function deny(error: EdgeError): Decision {
  return { kind: 'error', error };
}

class EdgeServer implements Edge {
  readonly #options: EdgeOptions;
  readonly #limits: EdgeLimits;
  readonly #server: http.Server;
  readonly #follower: RouteFollower;
  readonly #upstreams: Upstreams;
  readonly #sites: Sites;
  readonly #files: FileCache;
  readonly #compressed: CompressedFiles;
  readonly #proxy_context: ProxyContext;
  /** Every open connection of a client. */
  readonly #clients = new Map<Duplex, Turns>();
  #closing: Promise<void> | null = null;
  url = '';
  port = 0;

  constructor(options: EdgeOptions) {
    const { feed, objects, base_domain, log } = options;
    const limits = { ...DEFAULT_LIMITS, ...options.limits };
    this.#options = options;
    this.#limits = limits;
    this.#upstreams = new Upstreams(limits);
    this.#sites = new Sites(objects, { bytes: limits.site_cache_bytes, open: limits.open_sites });
    this.#files = new FileCache(limits.file_cache_bytes);
    this.#compressed = new CompressedFiles(this.#files, limits.compression_wait_ms);
    this.#follower = new RouteFollower({
      feed,
      base_domain,
      scan_interval_ms: limits.scan_interval_ms,
      feed_timeout_ms: limits.feed_timeout_ms,
      on_swap: (table: RouteTable) => {
        this.#upstreams.keepOnly(table.instance_ids);
        void this.#sites.dropReplaced();
      },
      log,
    });
    this.#proxy_context = {
      upstreams: this.#upstreams,
      limits,
      trust_forwarded: options.trust_forwarded ?? false,
      pickAgain: (target, tried) => {
        const route = this.#follower.table.find(target.host);
        return route === undefined ? null : this.#upstreams.pick(route, tried);
      },
      log,
    };
    this.#server = makeServer(limits);
    this.#listenTo(this.#server);
  }

  #listenTo(server: http.Server): void {
    server.on('connection', (socket) => {
      this.#clients.set(socket, new Turns(socket, this.#limits.waiting_requests));
      socket.once('close', () => this.#clients.delete(socket));
    });
    server.on('request', (request, response) =>
      this.#inTurn(request, response, () => this.#onRequest(request, response, false)),
    );
    server.on('checkContinue', (request, response) =>
      this.#inTurn(request, response, () => this.#onRequest(request, response, true)),
    );
    server.on('checkExpectation', (request, response) =>
      this.#inTurn(request, response, () => {
        response.shouldKeepAlive = false;
        sendError(request, response, 'EXPECTATION_FAILED');
      }),
    );
    // The edge is no forward proxy; without this node would hang up without a word.
    server.on('connect', (request, socket) =>
      this.#takeOver(socket, () => refuse({ request, socket }, 'BAD_REQUEST')),
    );
    server.on('upgrade', (request, socket, head) =>
      this.#takeOver(socket, () => this.#onUpgrade(request, socket, head)),
    );
  }

  async start(): Promise<void> {
    const { host, port, base_domain } = this.#options;
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(port, host, () => {
        this.#server.off('error', reject);
        resolve();
      });
    });
    this.port = (this.#server.address() as AddressInfo).port;
    this.url = `http://${base_domain}:${this.port}`;
    // Such as too many open files at a bad moment: one connection is lost, not the engine.
    this.#server.on('error', (error) =>
      this.#options.log('error', 'a connection could not be accepted', { error: error.message }),
    );
    await this.#follower.start();
  }

  generation(): number {
    return this.#follower.table.generation;
  }

  refresh(): Promise<number> {
    return this.#follower.refresh();
  }

  waitForGeneration(generation: number, timeout_ms: number): Promise<boolean> {
    return this.#follower.waitFor(generation, timeout_ms);
  }

  inFlight(instance_id: string): number {
    return this.#upstreams.inFlight(instance_id);
  }

  onIdle(instance_id: string, timeout_ms: number): Promise<boolean> {
    return this.#upstreams.onIdle(instance_id, timeout_ms);
  }

  closeConnections(instance_id: string): void {
    this.#upstreams.closeConnections(instance_id);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    // WebSockets do not end by themselves; their clients know how to come back.
    this.#upstreams.closeTunnels();
    const cut = setTimeout(() => {
      for (const socket of this.#clients.keys()) socket.destroy();
    }, this.#limits.close_grace_ms);
    // Node closes the idle connections once; those that become idle now are kept open for the next request.
    const sweep = setInterval(() => this.#server.closeIdleConnections(), CLOSE_SWEEP_MS);
    await Promise.all([closed, this.#follower.close()]);
    clearTimeout(cut);
    clearInterval(sweep);
    this.#upstreams.close();
    this.#sites.close();
  }

  #inTurn(request: IncomingMessage, response: ServerResponse, answer: () => void): void {
    const { socket } = request;
    response.on('error', () => {}); // a client that went away; 'close' follows
    response.on('timeout', cutIfStuck);
    this.#clients.get(socket)?.take(response, () => this.#guard(socket, answer));
  }

  /**
   * A connection that node has let go of. While an answer is still owed on it there is no way to say anything more:
   * node writes that answer on its own. No client that is in its right mind is in such a hurry, so it is cut off.
   */
  #takeOver(socket: Duplex, handle: () => void): void {
    socket.on('error', () => {});
    socket.on('timeout', () => cutIfStuck(socket as Socket));
    if (this.#clients.get(socket)?.isIdle() === true) this.#guard(socket, handle);
    else cut(socket as Socket);
  }

  /** An error that nobody foresaw costs the connection it came by, not every app on the machine. */
  #guard(socket: Duplex, handle: () => void): void {
    try {
      handle();
    } catch (error) {
      this.#options.log('error', 'a request could not be handled', { error: String(error) });
      socket.destroy();
    }
  }

  #onRequest(request: IncomingMessage, response: ServerResponse, expects_continue: boolean): void {
    if (this.#closing !== null) response.shouldKeepAlive = false;
    const decision = this.#decide(request);
    if (decision.kind === 'proxied') {
      const { target, lease } = decision;
      proxy({ request, response, target, expects_continue }, lease, this.#proxy_context);
      return;
    }
    // No body is wanted from here on; without `100 Continue` only a new connection is clear.
    if (expects_continue) response.shouldKeepAlive = false;
    // Where two parties may read one request differently, nothing after it on this connection can be trusted.
    if (decision.kind === 'error' && decision.error === 'BAD_REQUEST') response.shouldKeepAlive = false;
    if (decision.kind === 'error') sendError(request, response, decision.error);
    else if (decision.kind === 'page') sendPage(request, response, decision.page);
    else if (decision.kind === 'redirect') sendRedirect(request, response, decision.to);
    else void this.#serveStatic(request, response, decision);
  }

  async #serveStatic(
    request: IncomingMessage,
    response: ServerResponse,
    { route, target }: { route: Route; target: Target },
  ): Promise<void> {
    const { log } = this.#options;
    const files = this.#files;
    const compressed = this.#compressed;
    try {
      const lease = await this.#sites.use(route.object_key ?? '', route.manifest?.index_key ?? '');
      const spa_fallback = route.plan?.spa_fallback ?? null;
      const of = { request, response, target, spa_fallback, files, compressed, log };
      await serveStatic(of, lease).finally(lease.release);
    } catch (error) {
      const data = { deployment_id: route.deployment_id, release_id: route.release_id, error: String(error) };
      log('error', 'a static release could not be served', data);
      sendError(request, response, 'ARTIFACT_UNREADABLE');
    }
  }

  #onUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const decision = this.#decide(request);
    if (decision.kind === 'proxied') {
      tunnel({ request, socket, head, target: decision.target }, decision.lease, this.#proxy_context);
    } else {
      refuse({ request, socket }, decision.kind === 'error' ? decision.error : 'BAD_REQUEST');
    }
  }

  /**
   * Who answers, by the table in force; or what to say instead. Lookup, choice of an instance and count of the
   * request happen in this one tick: see upstreams.ts. A lease that is returned must be given back.
   */
  #decide(request: IncomingMessage): Decision {
    const limits = this.#limits;
    if (request.rawHeaders.length / 2 > limits.header_count) return deny('HEADERS_TOO_LARGE');
    const coding = request.headers['transfer-encoding'];
    if (coding !== undefined && coding.toLowerCase() !== 'chunked') return deny('BAD_REQUEST');
    const target = readTarget(request);
    if (target === null) return deny('BAD_REQUEST');
    if (Number(request.headers['content-length'] ?? 0) > limits.body_bytes) return deny('BODY_TOO_LARGE');
    const { table } = this.#follower;
    const route = table.find(target.host);
    if (route === undefined) return this.#decideWithoutRoute(target, table);
    if (route.state === 'stopped') return deny('STOPPED');
    if (route.version_id === null || route.release_kind === null) return deny('NOTHING_PUBLISHED');
    if (route.release_kind === 'static') return { kind: 'static', target, route };
    const lease = this.#upstreams.pick(route);
    if (lease === null) return deny(route.instances.length === 0 ? 'NO_INSTANCE' : 'BUSY');
    return { kind: 'proxied', target, lease };
  }

  #decideWithoutRoute(target: Target, table: RouteTable): Decision {
    const to = table.redirectOf(target.host);
    // Relative to the scheme, so that a client that came by https stays there.
    if (to !== undefined) {
      const location = `//${to}${portOf(target.authority)}${target.path}`;
      return { kind: 'redirect', to: { status: 301, location } };
    }
    const is_base = target.host === this.#options.base_domain.toLowerCase();
    const page = is_base ? this.#options.index_page?.() : null;
    if (page != null) return { kind: 'page', page };
    return deny(table.generation === UNREAD ? 'STARTING' : 'NO_SUCH_SITE');
  }
}

function makeServer(limits: EdgeLimits): http.Server {
  const server = http.createServer({
    maxHeaderSize: limits.header_bytes,
    headersTimeout: limits.headers_timeout_ms,
    requestTimeout: limits.request_timeout_ms,
    keepAliveTimeout: limits.keep_alive_ms,
    connectionsCheckingInterval: Math.min(5_000, limits.headers_timeout_ms),
    noDelay: true,
    shouldUpgradeCallback: isWebSocket,
    // Refused by the edge itself: node would answer out of turn.
    requireHostHeader: false,
  });
  // Nothing moved on a connection: see `cutIfStuck`. In between requests node sets `keepAliveTimeout` instead.
  server.timeout = limits.silence_timeout_ms;
  server.maxConnections = limits.connections;
  // Counted by the edge itself: node would drop the ones too many without a word.
  server.maxHeadersCount = 0;
  return server;
}

function sendPage(request: IncomingMessage, response: ServerResponse, page: string): void {
  response.writeHead(200, {
    'content-type': 'text/html; charset=utf-8',
    'content-length': Buffer.byteLength(page),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
  });
  response.end(request.method === 'HEAD' ? undefined : page);
}

function portOf(authority: string): string {
  return /:\d+$/.exec(authority)?.[0] ?? '';
}
