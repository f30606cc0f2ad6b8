/**
 * The reconciler: no input, on a timer and on a nudge. Normal work and repair take the same path, so a lost wake-up,
 * a crashed engine or a half-done clean-up are all put right here, at most a few seconds later.
 */
import { readdir, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import type { Instance } from '../domain/instance.ts';
import { UPLOAD_PREFIX } from '../domain/sandbox.ts';
import { beatEngine, livingEngineIds, removeSilentEngines } from '../store/engine.ts';
import {
  deploymentsOutOfScale,
  operationsWithOrphanedGating,
  retireGating,
  setInstanceState,
  unstoppedInstances,
} from '../store/instance.ts';
import { objectKeys, recordStrayObject } from '../store/object.ts';
import { abandonedOperations, expireStuck } from '../store/operation.ts';
import { bumpRoutes } from '../store/route.ts';
import { livingSandboxIds } from '../store/sandbox.ts';
import { transact } from '../store/transact.ts';
import type { EngineContext } from './context.ts';
import { instanceDir } from './instance-machine.ts';
import type { Supervisor } from './instances.ts';
import { KINDS, type Queue } from './queue.ts';
import { adjustReplicas } from './replicas.ts';

/** Over a stage's own deadline by this much, with the lease still renewed: the worker hangs. */
const STUCK_SLACK_MS = 60_000;
/** Of each lane, in one pass; more places than this no engine has. */
const MAX_SENT_AGAIN = 100;

export class Reconciler {
  readonly #ctx: EngineContext;
  readonly #queue: Queue;
  readonly #supervisor: Supervisor;
  #timer: NodeJS.Timeout | null = null;
  #passing: Promise<void> | null = null;

  constructor(ctx: EngineContext, queue: Queue, supervisor: Supervisor) {
    this.#ctx = ctx;
    this.#queue = queue;
    this.#supervisor = supervisor;
  }

  start(): void {
    this.#timer = setInterval(() => void this.pass(), this.#ctx.timings.reconcile_ms);
  }

  async stop(): Promise<void> {
    if (this.#timer) clearInterval(this.#timer);
    await this.#passing;
  }

  pass(): Promise<void> {
    this.#passing ??= this.#onePass().finally(() => {
      this.#passing = null;
    });
    return this.#passing;
  }

  /** What fails is said and tried again with the next pass; it holds nothing else up. */
  async #onePass(): Promise<void> {
    for (const step of [() => this.#engines(), () => this.#operations(), () => this.#instances()])
      await step().catch((error) =>
        this.#ctx.say('error', 'reconciling failed; it is tried again', { error: String(error) }),
      );
    await this.#supervisor.reconcile();
  }

  async #engines(): Promise<void> {
    const { db, id, timings, say } = this.#ctx;
    if (await beatEngine(db, { id, host: os.hostname(), pid: process.pid })) {
      say(
        'warn',
        'this engine was silent for so long that others took it for dead; what they took over is theirs',
      );
      // Nobody knows any more which routes its edge serves: with the next generation it says so.
      await transact(db, bumpRoutes);
    }
    await removeSilentEngines(db, timings.engine_silent_ms);
  }

  async #operations(): Promise<void> {
    const { db, say } = this.#ctx;
    for (const stuck of await expireStuck(db, STUCK_SLACK_MS))
      say('warn', `operation ${stuck} hangs; its lease was taken away`);
    const of_lanes = Object.values(KINDS).map((kinds) =>
      abandonedOperations(db, { kinds, limit: MAX_SENT_AGAIN }),
    );
    const abandoned = (await Promise.all(of_lanes)).flat();
    if (abandoned.length > 0) await transact(db, (trx) => this.#queue.sendAgain(trx, abandoned));
  }

  async #instances(): Promise<void> {
    const { db } = this.#ctx;
    for (const operation_id of await operationsWithOrphanedGating(db))
      await transact(db, (trx) => retireGating(trx, operation_id));
    await adoptInstances(this.#ctx, 'running', this.#supervisor);
    for (const deployment_id of await deploymentsOutOfScale(db))
      await adjustReplicas(this.#ctx, deployment_id);
  }
}

/**
 * Instances whose engine is gone: live ones that still run (images, in drivers that outlive the engine) go on under this
 * one, other live ones are started again here, all others are over. (What is left of those, `sweep` kills.)
 */
export async function adoptInstances(
  ctx: EngineContext,
  when: 'starting' | 'running',
  supervisor: Supervisor,
): Promise<void> {
  const living = new Set(await livingEngineIds(ctx.db));
  // The id stays with the data folder: on start, what it ran in an earlier life is gone as well.
  if (when === 'starting') living.delete(ctx.id);
  const orphans = (await unstoppedInstances(ctx.db)).filter(
    (row) => row.engine_id === null || !living.has(row.engine_id),
  );
  for (const row of orphans)
    try {
      if (row.role !== 'live' || !(await goesOn(ctx, row, supervisor))) await adopt(ctx, row);
    } catch (error) {
      ctx.say('error', `instance ${row.id} could not be taken over; it is tried again`, {
        error: String(error),
      });
    }
}

/** One whose machine cannot be taken over is started anew, like one that has none. */
async function goesOn(ctx: EngineContext, row: Instance, supervisor: Supervisor): Promise<boolean> {
  return supervisor.adopt(row).catch((error) => {
    ctx.say('warn', `instance ${row.id} does not go on under this engine and is started anew`, {
      error: String(error),
    });
    return false;
  });
}

async function adopt(ctx: EngineContext, row: Instance): Promise<void> {
  // Of engines that see it at once, one gets it.
  const only = { engine_id: row.engine_id };
  await transact(ctx.db, async (trx) => {
    if (row.role === 'live')
      await setInstanceState(
        trx,
        row.id,
        'starting',
        { engine_id: ctx.id, next_start_at: null, restart_count: 0 },
        only,
      );
    else await setInstanceState(trx, row.id, 'stopped', {}, only);
  });
  if (row.role !== 'live') await rm(instanceDir(ctx, row.id), { recursive: true, force: true });
}

/**
 * On start, before any work: folders and temporary files that no row speaks of are what a crash left behind. Only
 * inside the folders that Kiln itself fills.
 */
export async function sweepFolders(ctx: EngineContext): Promise<void> {
  const { folders } = ctx;
  const wanted = new Set((await unstoppedInstances(ctx.db)).map((row) => row.id));
  await emptyExcept(folders.instances, (name) => wanted.has(name));
  const sandboxes = new Set(await livingSandboxIds(ctx.db));
  await emptyExcept(folders.sandboxes, (name) => sandboxes.has(name));
  // Half uploads and exports lie beside the workspace they were for.
  for (const id of await readdir(folders.sandboxes))
    await emptyExcept(
      path.join(folders.sandboxes, id),
      (name) => !HALF_DONE.some((start) => name.startsWith(start)),
    );
  await emptyExcept(folders.work, () => false);
  await emptyExcept(folders.tmp, () => false);
  await emptyExcept(folders.machines, () => false);
}

/**
 * A crash, or a publish that ended, between storing an object and writing its row leaves an object in no book, which
 * retention would never touch. Only keys of Kiln's own making (a digest in one of its folders) are entered, as
 * unreferenced.
 */
export async function bookStrayObjects(ctx: Pick<EngineContext, 'db' | 'objects'>): Promise<void> {
  const booked = await objectKeys(ctx.db);
  for (const [folder, kind] of OWN_FOLDERS)
    for await (const { key, size_bytes } of ctx.objects.list(folder)) {
      if (booked.has(key) || !OWN_KEY.test(key)) continue;
      const is_index = key.endsWith('.index.json');
      await recordStrayObject(ctx.db, { key, kind: is_index ? 'index' : kind, size_bytes });
    }
}

const OWN_FOLDERS = [
  ['sources/', 'source'],
  ['releases/', 'release'],
  ['blobs/sha256/', 'blob'],
] as const;
const OWN_KEY =
  /^((sources|releases)\/[0-9a-f]{64}\.(tar|tar\.zst|index\.json)|blobs\/sha256\/[0-9a-f]{64})$/;

const HALF_DONE = [UPLOAD_PREFIX, 'export-'];

async function emptyExcept(dir: string, keep: (name: string) => boolean): Promise<void> {
  for (const name of await readdir(dir))
    if (!keep(name)) await rm(path.join(dir, name), { recursive: true, force: true });
}
