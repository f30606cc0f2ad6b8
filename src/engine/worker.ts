/**
 * Runs operations under a lease. Taking one raises its token; from then on every transaction of the run checks it with
 * `guard` (store/operation.ts), so a worker that lost its lease, even one that only slept, can write nothing (I5).
 *
 * A run ends in exactly one of these ways, and each writes one final row or none:
 *   the story ends        → promotion wrote `succeeded`, or `#fail` writes `failed`
 *   a cancel              → `cancelled`
 *   a stage deadline      → `failed`, STAGE_TIMEOUT
 *   the lease was lost    → nothing: whoever took over writes
 *   the engine stops      → nothing; the lease is given back, so that the next engine starts at once
 *   the database is away  → nothing; the lease is given back, and the operation taken up again (at most `attempts` times)
 *   a fault of ours       → `failed`, ENGINE_FAILED or STORAGE_FAILED
 */
import { rename, rm } from 'node:fs/promises';
import { type Failure, failure, type Stage } from '../domain/failure.ts';
import type { Operation, OperationKind } from '../domain/operation.ts';
import { publish, switchTo } from '../pipeline/pipeline.ts';
import type { Result, Run } from '../pipeline/run.ts';
import { verify } from '../pipeline/verify.ts';
import { setBuildState } from '../store/build.ts';
import { notify, type Trx } from '../store/db.ts';
import { deploymentById, lockDeployment, setDeploymentState } from '../store/deployment.ts';
import { appendEvent } from '../store/event.ts';
import { retireGating } from '../store/instance.ts';
import {
  abandonedOperations,
  claimOperation,
  finishOperation,
  guard,
  LeaseLost,
  nextPublish,
  type Outcome,
  releaseLease,
} from '../store/operation.ts';
import { TransactionFailed, transact } from '../store/transact.ts';
import { setVersionState, versionById } from '../store/version.ts';
import type { EngineContext } from './context.ts';
import { engineFailure } from './engine-failure.ts';
import type { Supervisor } from './instances.ts';
import { KINDS, type Lane, type Queue } from './queue.ts';
import { openRun, StageDeadline, type Turn, type TurnRun } from './turn.ts';

const STORIES: Record<OperationKind, (run: Run) => Promise<Result<unknown>>> = {
  publish,
  promote: switchTo,
  rollback: switchTo,
  verify,
};

const asideName = (operation_id: string) => `done-${operation_id}`;

export class Cancelled extends Error {}
export class EngineStopping extends Error {}

export class Worker {
  readonly #ctx: EngineContext;
  readonly #supervisor: Supervisor;
  readonly #queue: Queue;
  /** From before the claim to after the end. */
  readonly #looks = new Map<string, Promise<void>>();
  readonly #turns = new Map<string, Turn>();
  #stopping = false;

  constructor(ctx: EngineContext, supervisor: Supervisor, queue: Queue) {
    this.#ctx = ctx;
    this.#supervisor = supervisor;
    this.#queue = queue;
  }

  /**
   * One look at an operation: takes it when it is its turn and runs it to its end. Never rejects. One look at a time: a turn of
   * this very process that lost its lease first winds up, or both would work in the same folder.
   */
  async handle(operation_id: string): Promise<void> {
    if (this.#stopping || this.#looks.has(operation_id)) return;
    const look = this.#look(operation_id)
      .catch((error) =>
        this.#ctx.say('error', `operation ${operation_id} could not be worked on`, { error: String(error) }),
      )
      .finally(() => this.#looks.delete(operation_id));
    this.#looks.set(operation_id, look);
    await look;
  }

  async #look(operation_id: string): Promise<void> {
    const operation = await claimOperation(this.#ctx.db, operation_id, {
      owner: this.#ctx.id,
      lease_ms: this.#ctx.timings.lease_ms,
    });
    if (operation === null) return;
    const lease = { operation_id, token: operation.lease_token };
    if (this.#stopping) return await releaseLease(this.#ctx.db, lease);
    const turn: Turn = { operation, lease, abort: new AbortController() };
    this.#turns.set(operation_id, turn);
    try {
      await this.#run(turn);
    } finally {
      this.#turns.delete(operation_id);
    }
  }

  /** What the queue asks for when a place is free; see there. */
  async next(lane: Lane, tried: ReadonlySet<string>): Promise<string | null> {
    if (this.#stopping) return null;
    const waiting = await abandonedOperations(this.#ctx.db, { kinds: KINDS[lane], limit: tried.size + 1 });
    return waiting.find(({ id }) => !tried.has(id))?.id ?? null;
  }

  /** Ends a running operation of this process at once; others notice with their next renewal. */
  cancelled(operation_id: string): void {
    this.#turns.get(operation_id)?.abort.abort(new Cancelled());
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    for (const turn of this.#turns.values()) turn.abort.abort(new EngineStopping());
    await Promise.all(this.#looks.values());
  }

  async #run(turn: Turn): Promise<void> {
    const { abort, operation } = turn;
    const renewal = setInterval(() => void this.#renew(turn), this.#ctx.timings.renew_ms);
    let run: TurnRun | null = null;
    try {
      run = await openRun(this.#ctx, turn, this.#supervisor, (trx, outcome) =>
        this.#finish(trx, operation, outcome),
      );
      if (operation.cancel_requested_at !== null) abort.abort(new Cancelled());
      abort.signal.throwIfAborted();
      if (operation.attempt > this.#ctx.bounds.attempts) throw new Error('it was interrupted too many times');
      if (operation.attempt > 1) run.log.note(`taken up again (attempt ${operation.attempt})`);
      const result = await STORIES[operation.kind](run);
      if (!result.ok) await this.#fail(run, result.failure, 'failed');
    } catch (error) {
      await this.#broken(turn, run, abort.signal.aborted ? abort.signal.reason : error);
    } finally {
      clearInterval(renewal);
      await run?.end();
      await this.#cleanUp(operation);
      void this.#supervisor.reconcile();
    }
  }

  /**
   * With the outcome the next publish of the deployment may begin, in the same folder: so that is out of its way by then. To
   * remove it takes its time, and nobody waits for that.
   */
  async #setAside({ id, deployment_id, kind }: Operation): Promise<void> {
    if (kind !== 'publish') return;
    await rename(this.#ctx.workDir(deployment_id), this.#ctx.workDir(asideName(id))).catch((error) => {
      if (error.code !== 'ENOENT')
        this.#ctx.say('warn', 'a build folder could not be set aside', { error: String(error) });
    });
  }

  /** What is missed here is emptied by the next build, or by the next start. */
  async #cleanUp({ id, kind }: Operation): Promise<void> {
    const folder = { publish: asideName(id), verify: id, promote: null, rollback: null }[kind];
    if (folder === null) return;
    await rm(this.#ctx.workDir(folder), { recursive: true, force: true }).catch((error) =>
      this.#ctx.say('warn', 'a build folder could not be removed', { error: String(error) }),
    );
  }

  async #renew(turn: Turn): Promise<void> {
    try {
      const row = await guard(this.#ctx.db, turn.lease, this.#ctx.timings.lease_ms);
      if (row.cancel_requested_at !== null) turn.abort.abort(new Cancelled());
    } catch (error) {
      if (error instanceof LeaseLost) turn.abort.abort(error);
      // Any other error: the database is away for a moment; the lease itself decides.
    }
  }

  /** The final row, and the next publish of the deployment gets its turn, in the same transaction. */
  async #finish(trx: Trx, operation: Operation, outcome: Outcome): Promise<void> {
    await this.#setAside(operation);
    await finishOperation(trx, operation.id, outcome);
    const next = await nextPublish(trx, operation.deployment_id);
    if (next) await this.#queue.send(trx, next);
    await notify(trx, 'kiln_work', operation.id);
  }

  async #broken(turn: Turn, run: TurnRun | null, reason: unknown): Promise<void> {
    const { operation, lease } = turn;
    if (reason instanceof LeaseLost) {
      this.#ctx.say('warn', `operation ${operation.id}: the lease was lost; another worker has it`);
      return;
    }
    if (reason instanceof TransactionFailed)
      this.#ctx.say('warn', `operation ${operation.id} is taken up again: ${reason.message}`);
    if (reason instanceof EngineStopping || reason instanceof TransactionFailed) {
      await releaseLease(this.#ctx.db, lease);
      return;
    }
    const stage = reason instanceof StageDeadline ? reason.stage : (run?.version.stage ?? operation.stage);
    const problem = reason instanceof Cancelled ? cancelled(stage) : engineFailure(stage, reason);
    if (problem.fault === 'engine')
      this.#ctx.say('error', `operation ${operation.id} failed`, {
        error: reason instanceof Error ? reason.stack : String(reason),
      });
    try {
      await this.#fail(run, problem, reason instanceof Cancelled ? 'cancelled' : 'failed', turn);
    } catch (error) {
      if (error instanceof LeaseLost) return;
      // The row stays `running`; its lease runs out and somebody takes it up again (at most `attempts` times).
      this.#ctx.say('error', `the outcome of operation ${operation.id} could not be written`, {
        error: String(error),
      });
    }
  }

  async #fail(
    run: TurnRun | null,
    found: Failure,
    state: 'failed' | 'cancelled',
    turn?: Turn,
  ): Promise<void> {
    const problem = run?.redacted(found) ?? found;
    const operation = run?.operation ?? turn!.operation;
    const lease = turn?.lease ?? { operation_id: operation.id, token: operation.lease_token };
    run?.log.note(`${state}: ${problem.message} ${problem.next_step}`);
    const { db, timings } = this.#ctx;
    // They end before the outcome is told, so whoever waits for it finds them gone.
    const retired = await transact(db, async (trx) => {
      await guard(trx, lease, timings.lease_ms);
      return retireGating(trx, operation.id);
    });
    await this.#supervisor.end(retired);
    await transact(db, async (trx) => {
      await lockDeployment(trx, operation.deployment_id);
      await guard(trx, lease, timings.lease_ms);
      await recordFailure(trx, this.#ctx, operation, problem, state);
      await this.#finish(trx, operation, { state, promoted: false, superseded: false, failure: problem });
    });
  }
}

/**
 * What a failed or cancelled operation leaves behind in the rows of its version, build and deployment. The caller has
 * locked the deployment.
 */
export async function recordFailure(
  trx: Trx,
  ctx: EngineContext,
  operation: Operation,
  problem: Failure,
  state: 'failed' | 'cancelled',
): Promise<void> {
  // A verify says nothing about its version, whatever becomes of it.
  if (operation.kind === 'verify') return;
  const event = (type: Parameters<typeof appendEvent>[1]['type']) =>
    appendEvent(trx, {
      id: ctx.newId('evt'),
      tenant_id: operation.tenant_id,
      type,
      deployment_id: operation.deployment_id,
      version_id: operation.version_id,
      operation_id: operation.id,
      data: { code: problem.code, stage: problem.stage, message: problem.message, kind: operation.kind },
    });
  const version = await versionById(trx, operation.version_id);
  if (version.state === 'created' || version.state === 'building') {
    await setVersionState(trx, version.id, 'failed', { failure: problem });
    await setBuildState(trx, version.build_id, state, { error_message: problem.message });
    if (version.release_id === null && state === 'failed') await event('deployment.build_failed');
  }
  const deployment = await deploymentById(trx, operation.deployment_id);
  if (deployment && deployment.active_version_id === null)
    await setDeploymentState(trx, deployment.id, 'failed');
  await event(state === 'cancelled' ? 'deployment.cancelled' : 'deployment.failed');
}

export function cancelled(stage: Stage): Failure {
  return failure({
    stage,
    code: 'CANCELLED',
    fault: 'caller',
    message: 'It was cancelled.',
    next_step: 'Production is unchanged. Publish again, or `kiln retry` to build the same snapshot.',
  });
}
