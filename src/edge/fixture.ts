/** What the edge's tests and bench stand on: a feed in memory, real apps, a plain client. */
import http, { type IncomingHttpHeaders } from 'node:http';
import net, { type AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';
import { MemoryObjects, storeRelease } from '../release/static-site.fixture.ts';
import type { ObjectStore } from '../store/objects/port.ts';
import type { RouteRow } from '../store/route.ts';
import { type Edge, type EdgeLimits, type EdgeOptions, startEdge } from './edge.ts';
import type { RouteFeed } from './routes.ts';

export { MemoryObjects, sha256 } from '../release/static-site.fixture.ts';

/** A live table in memory. `failing` makes every call reject. */
export class MemoryFeed implements RouteFeed {
  generation = 1;
  rows: RouteRow[] = [];
  acknowledged: number[] = [];
  reads = 0;
  failing = false;
  notifies = true;
  readonly #listeners = new Set<() => void>();

  /** Changes the table and notifies, as one transaction of the store does. */
  set(rows: RouteRow[]): number {
    this.rows = rows;
    this.generation++;
    if (this.notifies) for (const listener of this.#listeners) listener();
    return this.generation;
  }

  async read(): Promise<{ generation: number; rows: RouteRow[] }> {
    this.reads++;
    this.#check();
    const { generation, rows } = this;
    await new Promise((resolve) => setImmediate(resolve));
    return { generation, rows };
  }

  async subscribe(on_change: () => void): Promise<() => Promise<void>> {
    this.#check();
    this.#listeners.add(on_change);
    return async () => void this.#listeners.delete(on_change);
  }

  async acknowledge(generation: number): Promise<void> {
    this.#check();
    this.acknowledged.push(generation);
  }

  #check(): void {
    if (this.failing) throw new Error('the database is away');
  }
}

const NO_ROUTE: RouteRow = {
  deployment_id: 'dep_1',
  slug: 'shop',
  host_label: 'acme',
  state: 'running',
  version_id: null,
  release_id: null,
  release_kind: null,
  sha256: null,
  object_key: null,
  manifest: null,
  plan: null,
  instances: [],
};

export function emptyRoute(of: Partial<RouteRow> = {}): RouteRow {
  return { ...NO_ROUTE, ...of };
}

export function appRoute(instances: RouteRow['instances'], of: Partial<RouteRow> = {}): RouteRow {
  return { ...NO_ROUTE, version_id: 'ver_1', release_id: 'rel_1', release_kind: 'rootfs', instances, ...of };
}

export async function staticRoute(
  objects: ObjectStore,
  files: Record<string, string | Buffer>,
  of: Partial<RouteRow> & { spa_fallback?: string } = {},
): Promise<RouteRow> {
  const { spa_fallback, ...row } = of;
  const { object_key, index_key, sha256 } = await storeRelease(objects, files);
  const count = Object.keys(files).length;
  return {
    ...NO_ROUTE,
    version_id: 'ver_1',
    release_id: 'rel_1',
    release_kind: 'static',
    sha256,
    object_key,
    manifest: { files: count, total_bytes: 0, entrypoint: null, index_key },
    plan: { spa_fallback: spa_fallback ?? null } as RouteRow['plan'],
    ...row,
  };
}

interface After {
  after(fn: () => unknown): void;
}

export interface Logged {
  level: string;
  message: string;
  data?: object;
}

/** An edge on a free port over the rows; closed after the test. */
export async function edgeFor(t: After, rows: RouteRow[], options: Partial<EdgeOptions> = {}) {
  const feed = new MemoryFeed();
  feed.rows = rows;
  const logged: Logged[] = [];
  const edge: Edge = await startEdge({
    host: '127.0.0.1',
    port: 0,
    feed,
    objects: new MemoryObjects(),
    base_domain: 'localhost',
    log: (level, message, data) => logged.push({ level, message, ...(data && { data }) }),
    ...options,
    limits: { close_grace_ms: 100, ...options.limits },
  });
  t.after(() => edge.close());
  return { edge, feed, logged };
}

/** A real server on a free port; cut and closed after the test. */
export async function listen(t: After, server: net.Server): Promise<number> {
  const sockets = new Set<net.Socket>();
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(async () => {
    for (const socket of sockets) socket.destroy();
    if (server.listening) await new Promise((resolve) => server.close(resolve));
  });
  return (server.address() as AddressInfo).port;
}

/** An app as an instance of a route. */
export async function appInstance(t: After, id: string, handler: http.RequestListener | net.Server) {
  const server = typeof handler === 'function' ? http.createServer(handler) : handler;
  return { id, host: '127.0.0.1', port: await listen(t, server), server };
}

/** An edge over one app, which is the instance `ins_1`. */
export async function edgeForApp(
  t: After,
  handler: http.RequestListener | net.Server,
  limits?: Partial<EdgeLimits>,
) {
  const instance = await appInstance(t, 'ins_1', handler);
  const made = await edgeFor(t, [appRoute([instance])], { limits });
  return { ...made, port: made.edge.port };
}

export interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  trailers: NodeJS.Dict<string>;
  body: string;
}

export interface Ask extends http.RequestOptions {
  body?: string | Buffer;
}

export const HOST = 'shop.acme.localhost';

/** One request on a connection of its own (unless an agent is given), the answer read to its end. */
export async function ask(port: number, url: string, options: Ask = {}): Promise<Answer> {
  const { body, headers, ...rest } = options;
  // Said explicitly: node sends the body of a DELETE without any framing otherwise.
  const length =
    body === undefined || rest.method === undefined ? {} : { 'content-length': Buffer.byteLength(body) };
  const request = http.request({
    agent: false,
    host: '127.0.0.1',
    port,
    path: url,
    headers: { host: HOST, ...length, ...(headers as http.OutgoingHttpHeaders) },
    ...rest,
  });
  request.end(body);
  const response = await new Promise<http.IncomingMessage>((resolve, reject) => {
    request.once('response', resolve);
    request.once('error', reject);
  });
  const text = (await buffer(response)).toString();
  if (!response.complete) throw new Error('the answer broke off');
  return {
    status: response.statusCode!,
    headers: response.headers,
    trailers: response.trailers,
    body: text,
  };
}

/** A request that the test sends and reads itself. */
export function openRequest(port: number, options: http.RequestOptions = {}): http.ClientRequest {
  const request = http.request({
    agent: false,
    host: '127.0.0.1',
    port,
    headers: { host: HOST },
    ...options,
  });
  request.on('error', () => {});
  return request;
}

/** Sends raw bytes and resolves to everything that comes back until the end of the connection. */
export async function askRaw(port: number, bytes: string): Promise<string> {
  const socket = net.connect(port, '127.0.0.1');
  socket.write(bytes, 'latin1');
  return (await buffer(socket)).toString('latin1');
}
