/** The parts of one engine, in the order they need each other: database, objects, engine, edge and API. */
import { randomBytes } from 'node:crypto';
import path from 'node:path';
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
import { type Folders, keptSecret } from './engine/folders.ts';
import type { KnownSecrets } from './engine/known-secrets.ts';
import { pairWithDatabase } from './engine/pairing.ts';
import { openVault } from './engine/vault-key.ts';
import { openCache } from './isolation/cache.ts';
import type { Machines } from './machines.ts';
import { makeVerifier } from './release/verify.ts';
import type { Closers, Hooks, Server } from './server.ts';
import type { Database } from './store/db.ts';
import { fileObjectStore } from './store/objects/files.ts';
import { acknowledgeRoutes, routeReader } from './store/route.ts';
import { ensureTenant, type NewId } from './store/tenant.ts';
import { transact } from './store/transact.ts';

export interface Opened {
  config: Config;
  hooks: Hooks;
  folders: Folders;
  say: Log;
  /** What the log is redacted by. */
  secrets: KnownSecrets;
  closers: Closers;
  machines: Promise<Machines>;
  database: Promise<Database>;
  /** Notes how long the start has taken so far; in the engine's log at the end. */
  reached(phase: string): void;
}

export async function openEngine(o: Opened): Promise<Omit<Server, 'closed' | 'close'>> {
  const { config, hooks, folders, say, closers } = o;
  const [database, machines] = await Promise.all([o.database, o.machines]);
  await pairWithDatabase(database.db, folders);
  const files = fileObjectStore(folders.objects);
  await files.sweepTemp();
  const objects = hooks.wrapObjects?.(files) ?? files;
  const { driver, builder, runtime, image_builder, images_missing } = machines;
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
    base: machines.base,
    ...{ builder, builder_base: machines.builder_base },
    ...{ runtime, image_builder, images_missing },
    network: config.network,
    openCache: cachesOf(config, folders),
    vault: o.secrets.watch(await openVault(database.db, folders.data)),
    newId,
    folders,
    tmp_dir: folders.tmp,
    workDir: (id) => path.join(folders.work, id),
    ...{ limits: config.limits, health: config.health, timings: config.timings },
    ...{ bounds: config.bounds, retention: config.retention },
    idempotency_retention_ms: config.api_limits.idempotency_retention_ms,
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
  o.reached('recovered');
  edge = await listening('edge', config.edge, () => openEdge(config, ctx, closers));
  // Before the engine starts: its first look at everything is nothing that the API should wait for.
  const key = await firstKey(database, folders, newId);
  closers.add(() => engine.stop()); // also of what a start that fails had begun
  await engine.start();
  const app = createApi(apiDeps(config, ctx, engine));
  const api = await listening('api', config.api, () => serveApi(app, config.api, { newId, log: say }));
  closers.add(() => api.close());
  const warnings = driver.name === 'process' ? [PROCESS_WARNING] : [];
  if (!listensOnLoopbackOnly(config))
    warnings.push('The API or the edge listens beyond loopback, without TLS.');
  builder.warm?.();
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
    idempotency_retention_ms: ctx.idempotency_retention_ms,
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
      read: routeReader(ctx.db),
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
  const tenant = await transact(database.db, (trx) =>
    ensureTenant(trx, newId, { name: 'Local', slug: 'local' }),
  );
  return ensureKey(database.db, newId, tenant.id, (make) => keptSecret(folders.data, 'api.key', make));
}

function hostUrl(config: Config, name: string, port: number): string {
  return `http://${name}.${config.base_domain}${port === 80 ? '' : `:${port}`}`;
}
