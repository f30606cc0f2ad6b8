/** The wiring of one engine process: database, objects, isolation, engine, edge and API, in the order they need each other. */
import { randomBytes } from 'node:crypto';
import path from 'node:path';
import pino from 'pino';
import { type ApiDeps, createApi } from './api/app.ts';
import { ensureKey } from './api/auth.ts';
import { dnsResolver } from './api/dns.ts';
import { serveApi } from './api/serve.ts';
import { type Config, listensOnLoopbackOnly, refuseOpenProcessDriver } from './config.ts';
import { KilnError } from './domain/errors.ts';
import { makeId } from './domain/ids.ts';
import { type Edge, startEdge } from './edge/edge.ts';
import type { EdgePort, EngineContext, Log } from './engine/context.ts';
import { LocalEngine } from './engine/create.ts';
import { type Folders, keptSecret, lockFolder, makeFolders } from './engine/folders.ts';
import { openCache } from './isolation/cache.ts';
import { openMachines } from './machines.ts';
import { makeVerifier } from './release/verify.ts';
import { type Database, openDatabase } from './store/db.ts';
import { fileObjectStore } from './store/objects/files.ts';
import type { ObjectStore } from './store/objects/port.ts';
import { acknowledgeRoutes, readRoutes } from './store/route.ts';
import { ensureTenant, type NewId } from './store/tenant.ts';
import { makeVault } from './store/vault.ts';

export interface Server {
  api_url: string;
  edge_url: string;
  /** The key made on first start, also in `<data>/api.key`. */
  key: string;
  isolation: string;
  warnings: string[];
  /** Resolves once everything has ended. */
  closed: Promise<void>;
  close(): Promise<void>;
}

export interface Hooks {
  say?: Log;
  /** For tests that make storage fail. */
  wrapObjects?: (store: ObjectStore) => ObjectStore;
  /** The environment that toolchains and registry settings of machines are taken from. */
  host_env: Record<string, string>;
}

/** Everything opened so far, closed in the opposite order; each step gets its chance even if an earlier one fails. */
class Closers {
  readonly #steps: (() => unknown)[] = [];
  add(step: () => unknown): void {
    this.#steps.push(step);
  }
  async run(say: Log): Promise<void> {
    for (const step of this.#steps.splice(0).reverse())
      try {
        await step();
      } catch (error) {
        say('warn', 'a part did not close cleanly', { error: String(error) });
      }
  }
}

/** Rejects with a KilnError that says what is in the way (folder in use, port taken, driver that does not work). */
export async function startServer(config: Config, hooks: Hooks): Promise<Server> {
  const closers = new Closers();
  const folders = await makeFolders(config.data_dir);
  const lock = lockFolder(config.data_dir, apiUrl(config));
  closers.add(() => lock.release());
  const say = engineLog(config, folders, hooks.say);
  try {
    const server = await open(config, hooks, folders, say, closers);
    lock.announce(server.api_url);
    const closed = Promise.withResolvers<void>();
    let closing: Promise<void> | null = null;
    const close = () => {
      closing ??= closers.run(say).then(closed.resolve);
      return closing;
    };
    return { ...server, closed: closed.promise, close };
  } catch (error) {
    await closers.run(say);
    throw error;
  }
}

async function open(
  config: Config,
  hooks: Hooks,
  folders: Folders,
  say: Log,
  closers: Closers,
): Promise<Omit<Server, 'closed' | 'close'>> {
  const database = await openDatabase(
    config.database_url ? { url: config.database_url } : { dir: folders.database },
  );
  closers.add(() => database.close());
  const files = fileObjectStore(folders.objects);
  await files.sweepTemp();
  const objects = hooks.wrapObjects?.(files) ?? files;
  const machines = await openMachines(config, { folders, host_env: hooks.host_env, say });
  const { driver, builder, runtime, image_builder, images_missing } = machines;
  closers.add(() => builder.close?.());
  refuseOpenProcessDriver(config, driver.name);
  const newId: NewId = (prefix) => makeId(prefix, Date.now(), randomBytes(16));
  let edge: Edge | null = null;
  const ctx: EngineContext = {
    id: await keptSecret(folders.data, 'engine.id', () => `eng_${randomBytes(8).toString('hex')}`),
    database,
    db: database.db,
    objects,
    verifier: makeVerifier(objects),
    driver,
    base: await driver.base(),
    ...{ builder, builder_base: await builder.base() },
    ...{ runtime, image_builder, images_missing },
    network: config.network,
    openCache: cachesOf(config, folders),
    vault: makeVault(Buffer.from(await keptSecret(folders.data, 'vault.key'), 'hex')),
    newId,
    folders,
    tmp_dir: folders.tmp,
    workDir: (deployment_id) => path.join(folders.work, deployment_id),
    ...{ limits: config.limits, health: config.health, timings: config.timings },
    ...{ bounds: config.bounds, retention: config.retention },
    cache_total_bytes: config.cache.total_bytes,
    allow_private_webhooks: config.allow_private_webhooks,
    push_registries: config.push_registries,
    urlOf: (slug, workspace) => hostUrl(config, `${slug}.${workspace}`, edge?.port ?? config.edge.port),
    edge: edgePort(() => edge),
    now: () => new Date(),
    say,
  };
  const engine = new LocalEngine({ ctx, drivers: machines.explain });
  await engine.prepare();
  edge = await listening('edge', config.edge, () => openEdge(config, ctx, closers));
  await engine.start();
  closers.add(() => engine.stop());
  const key = await firstKey(database, folders, newId);
  const app = createApi(apiDeps(config, ctx, engine));
  const api = await listening('api', config.api, () => serveApi(app, config.api));
  closers.add(() => api.close());
  const warnings = driver.name === 'process' ? [PROCESS_WARNING] : [];
  if (!listensOnLoopbackOnly(config))
    warnings.push('The API or the edge listens beyond loopback, without TLS.');
  builder.warm?.();
  say('info', 'ready', { api: api.url, edge: edge.url, isolation: builder.name });
  return { api_url: api.url, edge_url: edge.url, key, isolation: builder.name, warnings };
}

/** Package caches of builds, one folder a deployment. */
function cachesOf({ cache }: Config, folders: Folders): EngineContext['openCache'] {
  if (cache.deployment_bytes === 0) return null;
  return (deployment_id) =>
    openCache({ dir: path.join(folders.build_caches, deployment_id), max_bytes: cache.deployment_bytes });
}

/** Words what the system says of a port that cannot be had. */
async function listening<T>(
  what: 'api' | 'edge',
  at: { host: string; port: number },
  listen: () => Promise<T>,
): Promise<T> {
  try {
    return await listen();
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    const where = `${at.host}:${at.port}`;
    const why: Record<string, string> = {
      EADDRINUSE: `another program listens on ${where} already`,
      EACCES: `this user may not listen on ${where}`,
      EADDRNOTAVAIL: `this machine has no address ${at.host}`,
    };
    if (code === undefined || why[code] === undefined) throw error;
    throw new KilnError(
      'CONFLICT',
      `The ${what} cannot start: ${why[code]}. Choose another with --${what}-port or --${what}-host.`,
      { cause: error },
    );
  }
}

function apiDeps(config: Config, ctx: EngineContext, engine: LocalEngine): ApiDeps {
  const { database, vault, newId, now, say } = ctx;
  return {
    engine,
    database,
    vault,
    newId,
    now,
    limits: config.api_limits,
    base_domain: config.base_domain,
    resolver: dnsResolver(),
    allow_private_webhooks: config.allow_private_webhooks,
    idempotency_retention_ms: config.api_limits.idempotency_retention_ms,
    strict_answers: config.strict_answers,
    log: say,
  };
}

const PROCESS_WARNING =
  'Isolation: process. It isolates nothing: what you publish can read and change whatever you can. Install bubblewrap for real isolation.';

async function openEdge(config: Config, ctx: EngineContext, closers: Closers): Promise<Edge> {
  const edge = await startEdge({
    ...config.edge,
    base_domain: config.base_domain,
    objects: ctx.objects,
    log: ctx.say,
    feed: {
      read: () => readRoutes(ctx.db),
      subscribe: (on_change) => ctx.database.listen('kiln_routes', on_change),
      acknowledge: (generation) => acknowledgeRoutes(ctx.db, ctx.id, generation),
    },
  });
  closers.add(() => edge.close());
  await edge.refresh();
  return edge;
}

/** Until the edge is up there is nobody to wait for. */
function edgePort(edge: () => Edge | null): EdgePort {
  return {
    waitForGeneration: async (generation, timeout_ms) =>
      (await edge()?.waitForGeneration(generation, timeout_ms)) ?? true,
    onIdle: async (id, timeout_ms) => (await edge()?.onIdle(id, timeout_ms)) ?? true,
    closeConnections: (id) => edge()?.closeConnections(id),
  };
}

/** The tenant of a single-machine install and its key, made on first start and kept with mode 0600. */
async function firstKey(database: Database, folders: Folders, newId: NewId): Promise<string> {
  const tenant = await database.db
    .transaction()
    .execute((trx) => ensureTenant(trx, newId, { name: 'Local', slug: 'local' }));
  return ensureKey(database.db, newId, tenant.id, (make) => keptSecret(folders.data, 'api.key', make));
}

function engineLog(config: Config, folders: Folders, also: Log | undefined): Log {
  const file = pino(
    { level: config.log_level, base: null },
    pino.destination({ dest: path.join(folders.data, 'logs', 'engine.log'), sync: true, mkdir: true }),
  );
  return (level, message, data) => {
    file[level](data ?? {}, message);
    also?.(level, message, data);
  };
}

function apiUrl(config: Config): string {
  return `http://${config.api.host.includes(':') ? `[${config.api.host}]` : config.api.host}:${config.api.port}`;
}

function hostUrl(config: Config, name: string, port: number): string {
  return `http://${name}.${config.base_domain}${port === 80 ? '' : `:${port}`}`;
}
