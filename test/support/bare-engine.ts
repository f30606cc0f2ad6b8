/**
 * Engines without an edge, an API or real machines, several on one database if need be: for tests of what they write.
 * An instance is a server in this process, which a test can let crash.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import http from 'node:http';
import { Readable } from 'node:stream';
import type { Deployment } from '../../src/domain/deployment.ts';
import type { Operation, OperationKind } from '../../src/domain/operation.ts';
import type { Release } from '../../src/domain/release.ts';
import type { Version } from '../../src/domain/version.ts';
import type { EngineContext } from '../../src/engine/context.ts';
import { makeFolders } from '../../src/engine/folders.ts';
import { Supervisor } from '../../src/engine/instances.ts';
import type { Queue } from '../../src/engine/queue.ts';
import { Reconciler } from '../../src/engine/reconcile.ts';
import { openRun, type TurnRun } from '../../src/engine/turn.ts';
import { Worker } from '../../src/engine/worker.ts';
import type { Machine, MachineExit } from '../../src/isolation/driver.ts';
import type { Adoption, ImageRuntime, InstanceSpec } from '../../src/isolation/runtime.ts';
import { sealEnv } from '../../src/pipeline/version-env.ts';
import { imageOf } from '../../src/release/oci/layers.fixtures.ts';
import { makeVerifier } from '../../src/release/verify.ts';
import type { Database, Trx } from '../../src/store/db.ts';
import { takeSeq } from '../../src/store/deployment.ts';
import { registerEngine } from '../../src/store/engine.ts';
import { fileObjectStore } from '../../src/store/objects/files.ts';
import { claimOperation, finishOperation, insertOperation } from '../../src/store/operation.ts';
import { insertRelease } from '../../src/store/release.ts';
import { acknowledgeRoutes } from '../../src/store/route.ts';
import { makeVault } from '../../src/store/vault.ts';
import { setVersionState, versionById } from '../../src/store/version.ts';
import { tempDir } from './folders.ts';
import { aVersion, newId } from './rows.ts';

const VAULT = makeVault(Buffer.alloc(32, 7));
const NO_ENV = { vars: {}, secret_names: [] };
const EXIT: MachineExit = {
  reason: 'exited',
  exit_code: 9,
  signal: null,
  peak_memory_bytes: 0,
  peak_processes: 1,
  duration_ms: 1,
};

/** Runs "images": each instance is a server that answers 200 until it is stopped or crashes. */
export class FakeRuntime implements ImageRuntime {
  readonly name = 'docker';
  survives_engine = false;
  /** What the instances answer. */
  status = 200;
  /** Those that run. */
  readonly running = new Map<string, { crash(): Promise<void> }>();
  /** Every id that was ever started. */
  readonly started: string[] = [];
  /** Called instead of finding a machine that outlived its engine. */
  adopting: (of: Adoption) => Promise<Machine | null> = async () => null;

  selfTest = async () => ({ ok: true as const, detail: '' }) as never;
  release = async () => undefined;
  sweep = async () => [];
  adopt(of: Adoption): Promise<Machine | null> {
    return this.adopting(of);
  }

  async start(spec: InstanceSpec): Promise<Machine> {
    const server = http.createServer((_, answer) => answer.writeHead(this.status).end('ok'));
    await once(server.listen(spec.host_port, '127.0.0.1'), 'listening');
    const exited = Promise.withResolvers<MachineExit>();
    const end = async () => {
      this.running.delete(spec.id);
      server.close();
      server.closeAllConnections();
      exited.resolve(EXIT);
      return exited.promise;
    };
    this.started.push(spec.id);
    this.running.set(spec.id, { crash: async () => void (await end()) });
    return {
      id: spec.id,
      pid: process.pid,
      exited: exited.promise,
      stop: end,
      listening: async () => [],
      usage: async () => ({ memory_bytes: 0, processes: 1 }),
    };
  }
}

export interface BareEngine {
  ctx: EngineContext;
  runtime: FakeRuntime;
  supervisor: Supervisor;
  worker: Worker;
  reconciler: Reconciler;
  /** What the engine's log got. */
  said: string[];
  close(): Promise<void>;
}

/** Without a queue: the test hands operations to the worker itself. `beside`: another engine, whose objects it shares. */
export async function bareEngine(
  database: Database,
  id: string,
  beside?: EngineContext,
): Promise<BareEngine> {
  const folders = await makeFolders(await tempDir('bare'));
  const said: string[] = [];
  const runtime = new FakeRuntime();
  const ctx = contextOf(database, id, {
    folders,
    runtime,
    say: (_, message, data) => said.push(`${message} ${JSON.stringify(data ?? {})}`),
    ...(beside ? { objects: beside.objects } : {}),
  });
  const nothing = async () => {};
  const none: Queue = { start: nothing, send: nothing, sendAgain: nothing, stop: nothing };
  const supervisor = new Supervisor(ctx);
  await registerEngine(database.db, { id, host: 'test', pid: process.pid });
  return {
    ...{ ctx, runtime, supervisor, said },
    worker: new Worker(ctx, supervisor, none),
    reconciler: new Reconciler(ctx, none, supervisor),
    async close() {
      await supervisor.stop();
      // Those that would outlive an engine do not outlive the test.
      for (const left of [...runtime.running.values()]) await left.crash();
      await rm(folders.data, { recursive: true, force: true });
    },
  };
}

export function contextOf(
  database: Database,
  id: string,
  of: Pick<EngineContext, 'folders' | 'runtime' | 'say'> & Partial<Pick<EngineContext, 'objects'>>,
): EngineContext {
  const objects = of.objects ?? fileObjectStore(of.folders.objects);
  const driver = {
    name: 'process',
    base_image: null,
    sweep: async () => [],
    start: () => Promise.reject(new Error('a bare engine starts no host process')),
  } as unknown as EngineContext['driver'];
  return {
    ...of,
    ...{ id, database, db: database.db, objects, driver, base: 'test' },
    ...{ builder: driver, builder_base: 'test', image_builder: null, images_missing: '' },
    network: { mode: 'none', allow: [] },
    openCache: null,
    vault: VAULT,
    newId,
    tmp_dir: of.folders.tmp,
    workDir: (deployment_id) => `${of.folders.work}/${deployment_id}`,
    limits: {
      source: { max_bytes: 1e6, max_files: 1000 },
      artifact_bytes: 1e6,
      build: { time_ms: 1000, memory_bytes: 1e9, processes: 10, disk_bytes: 1e9, log_bytes: 1e6 },
    } as EngineContext['limits'],
    health: {
      ...{ grace_ms: 0, startup_timeout_ms: 20_000, probe_interval_ms: 20, probe_timeout_ms: 2000 },
      instance_memory_bytes: 1e9,
    },
    timings: {
      ...{ lease_ms: 60_000, renew_ms: 20_000, reconcile_ms: 200, engine_silent_ms: 60_000 },
      ...{ warm_ms: 600_000, drain_ms: 1000, stop_grace_ms: 1000 },
    },
    bounds: {
      ...{ concurrency: 6, queued_operations: 1000, replicas: 32, warm_versions: 2, instance_processes: 10 },
      ...{ instance_disk_bytes: 1e9, log_bytes: 1e6, crash_restarts: 10, attempts: 5 },
    },
    retention: { days: 30, keep_versions: 10 },
    cache_total_bytes: 1e9,
    allow_private_webhooks: true,
    push_registries: [],
    idempotency_retention_ms: 86_400_000,
    urlOf: (slug, host) => `http://${slug}.${host}.test`,
    now: () => new Date(),
    verifier: makeVerifier(objects),
    edge: {
      waitForGeneration: async (generation) => {
        await acknowledgeRoutes(database.db, id, generation);
        return true;
      },
      onIdle: async () => true,
      closeConnections: () => {},
    },
  };
}

/** A version with a stored release, ready to be proved and promoted, or promoted again. */
export async function aReleasedVersion(
  ctx: EngineContext,
  deployment: Deployment,
  of: { kind: 'static' | 'dynamic'; state: 'building' | 'ready' },
): Promise<Version> {
  const release = of.kind === 'static' ? await staticBytes(ctx) : await imageBytes(ctx);
  const { tenant_id, workspace_id, project_id } = deployment;
  const nobody = { external_workspace_id: null, external_user_id: null, external_project_id: null };
  return ctx.db.transaction().execute(async (trx) => {
    const made = await aVersion(trx, deployment, await takeSeq(trx, deployment.id));
    const release_id = newId('rel');
    await insertRelease(trx, {
      ...{ id: release_id, tenant_id, workspace_id, project_id, ...nobody, ...release },
      ...{ deployment_id: deployment.id, version_id: made.id, start_command: null, port: null },
      ...{ reuse_key: made.id, ready_at: new Date() },
    });
    await setVersionState(trx, made.id, 'building');
    if (of.state === 'ready') await setVersionState(trx, made.id, 'ready');
    return await withRunSettings(trx, ctx, { ...made, kind: of.kind, release_id });
  });
}

async function withRunSettings(trx: Trx, ctx: EngineContext, version: Version): Promise<Version> {
  const { id, kind, release_id } = version;
  const run_settings = {
    ...{ port: null, health_check_path: '/', startup_timeout_ms: 20_000, grace_ms: ctx.health.grace_ms },
    ...{ probe_timeout_ms: 2000, probe_interval_ms: 20, replicas: 1, memory_bytes: 1e9 },
  };
  await trx
    .updateTable('versions')
    .set({
      ...{ kind, release_id, run_settings: JSON.stringify(run_settings) as never },
      env_encrypted: sealEnv(ctx.vault, id, 'run', NO_ENV),
      build_env_encrypted: sealEnv(ctx.vault, id, 'build', NO_ENV),
    })
    .where('id', '=', id)
    .execute();
  return { ...(await versionById(trx, id)), run_settings };
}

async function staticBytes(
  ctx: EngineContext,
): Promise<Pick<Release, 'kind' | 'sha256' | 'object_key' | 'size_bytes' | 'manifest'>> {
  const sha256 = '9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08';
  const object_key = `releases/${sha256}.tar`;
  if ((await ctx.objects.head(object_key)) === null)
    await ctx.objects.put(object_key, Readable.from([Buffer.from('test')]));
  return {
    kind: 'static',
    sha256,
    object_key,
    size_bytes: 4,
    manifest: { total_bytes: 4, entrypoint: null },
  };
}

async function imageBytes(ctx: EngineContext): ReturnType<typeof staticBytes> {
  const image = await imageOf(ctx.objects, [[{ name: 'app', content: 'app' }]]);
  const sha256 = image.digest.slice('sha256:'.length);
  const manifest = { total_bytes: 1, entrypoint: null };
  return { kind: 'oci', sha256, object_key: `blobs/sha256/${sha256}`, size_bytes: 1, manifest };
}

/** The story of an operation, to be told stage by stage by a test. */
export async function aRun(engine: BareEngine, operation_id: string): Promise<TurnRun> {
  const { ctx, supervisor } = engine;
  const operation = (await claimOperation(ctx.db, operation_id, { owner: ctx.id, lease_ms: 60_000 }))!;
  const lease = { operation_id, token: operation.lease_token };
  return openRun(ctx, { operation, lease, abort: new AbortController() }, supervisor, (trx, outcome) =>
    finishOperation(trx, operation_id, outcome).then(() => {}),
  );
}

export async function until(what: string, holds: () => Promise<boolean> | boolean): Promise<void> {
  for (const end = Date.now() + 30_000; !(await holds()); ) {
    if (Date.now() > end) assert.fail(`never: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** An accepted intent about a version that has its release. */
export async function anIntent(
  ctx: EngineContext,
  version: Version,
  kind: OperationKind,
): Promise<Operation> {
  const { tenant_id, deployment_id, id: version_id } = version;
  return ctx.db.transaction().execute(async (trx) => {
    const seq = await takeSeq(trx, deployment_id);
    return insertOperation(trx, { id: newId('op'), kind, seq, tenant_id, deployment_id, version_id });
  });
}
