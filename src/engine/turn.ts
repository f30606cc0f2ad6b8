/** One turn of a worker with an operation, in the shape that the pipeline's stages see it. */
import path from 'node:path';
import type { EventType } from '../domain/event.ts';
import type { Failure, Stage } from '../domain/failure.ts';
import type { Operation } from '../domain/operation.ts';
import { redactIn, redactText } from '../domain/redact.ts';
import type { Run } from '../pipeline/run.ts';
import { openEnv, secretValues } from '../pipeline/version-env.ts';
import type { Trx } from '../store/db.ts';
import { deploymentById, lockDeployment } from '../store/deployment.ts';
import { appendEvent } from '../store/event.ts';
import { type LogWriter, openLog } from '../store/logs.ts';
import { guard, type Lease, type Outcome, recordOperationStage } from '../store/operation.ts';
import { transact } from '../store/transact.ts';
import { recordStage, recordStageTime, versionById, versionSecrets } from '../store/version.ts';
import type { EngineContext } from './context.ts';
import type { Supervisor } from './instances.ts';

export interface Turn {
  operation: Operation;
  lease: Lease;
  abort: AbortController;
}

export type TurnRun = Run & {
  /** The failure without values that are secret to this version: apps print, answer and redirect to them. */
  redacted(failure: Failure): Failure;
  end(): Promise<void>;
};

/** The stage took longer than it may. */
export class StageDeadline extends Error {
  readonly stage: Stage;
  constructor(stage: Stage, deadline_ms: number) {
    super(`stage ${stage} took longer than ${Math.round(deadline_ms / 1000)} s`);
    this.name = 'StageDeadline';
    this.stage = stage;
  }
}

export async function openRun(
  ctx: EngineContext,
  turn: Turn,
  supervisor: Supervisor,
  finish: (trx: Trx, outcome: Outcome) => Promise<void>,
): Promise<TurnRun> {
  const { operation, abort, lease } = turn;
  const version = await versionById(ctx.db, operation.version_id);
  const deployment = await deploymentById(ctx.db, operation.deployment_id);
  if (!deployment) throw new Error(`operation ${operation.id} has no deployment`);
  const secrets = await secretsOf(ctx, version.id);
  const log = openBuildLog(ctx, secrets, operation.kind === 'verify' ? operation.id : version.build_id);
  const timer = new StageTimer(turn);
  const { record, recordOutcome } = recording(ctx, turn);
  const event = (trx: Trx, type: EventType, data: Record<string, unknown> = {}) =>
    appendEvent(trx, {
      id: ctx.newId('evt'),
      tenant_id: operation.tenant_id,
      type,
      deployment_id: operation.deployment_id,
      version_id: operation.version_id,
      operation_id: operation.id,
      data,
    });
  const recordTime = async (trx: Trx, ended: Ended | null) => {
    if (ended && operation.kind !== 'verify')
      await recordStageTime(trx, version.id, ended.stage, ended.duration_ms);
  };
  let last: Ended | null = null;
  const run: TurnRun = {
    ...ctx,
    operation,
    deployment,
    version,
    log,
    signal: abort.signal,
    instances: supervisor,
    record,
    recordOutcome,
    event,
    async enter(stage, deadline_ms) {
      const ended = timer.enter(stage, deadline_ms);
      log.note(`── ${stage}`);
      await record(async (trx) => {
        await recordOperationStage(trx, lease, stage, deadline_ms);
        // A verify looks at a version that is finished.
        if (operation.kind !== 'verify') await recordStage(trx, version.id, stage);
        await recordTime(trx, ended);
        await event(trx, 'deployment.stage', { stage });
      });
      run.version = { ...run.version, stage };
    },
    async finish(trx, outcome) {
      // The transaction may be tried again, the stage ends once.
      last ??= timer.end();
      await recordTime(trx, last);
      await finish(trx, outcome);
    },
    redacted: (failure) => withoutSecrets(failure, secrets),
    async end() {
      timer.end();
      await log.close();
    },
  };
  return run;
}

/** The only ways in which a turn writes: under its lease, which is checked and extended first. */
function recording(
  ctx: EngineContext,
  { operation, lease, abort }: Turn,
): Pick<Run, 'record' | 'recordOutcome'> {
  const { db, timings } = ctx;
  return {
    async record(write) {
      abort.signal.throwIfAborted();
      return transact(db, async (trx) => {
        await guard(trx, lease, timings.lease_ms);
        return write(trx);
      });
    },
    async recordOutcome(write) {
      abort.signal.throwIfAborted();
      return transact(db, async (trx) => {
        const deployment = await lockDeployment(trx, operation.deployment_id);
        await guard(trx, lease, timings.lease_ms);
        return write(trx, deployment);
      });
    },
  };
}

/** Everything that is secret to this version is redacted by value in what its build and the engine say. */
async function secretsOf(ctx: EngineContext, version_id: string): Promise<string[]> {
  const sealed = await versionSecrets(ctx.db, version_id);
  return secretValues(
    openEnv(ctx.vault, version_id, 'run', sealed.env_encrypted),
    openEnv(ctx.vault, version_id, 'build', sealed.build_env_encrypted),
  );
}

/** Its words only: a secret may be spelled like a code. The tail of the log is redacted already. */
function withoutSecrets(failure: Failure, secrets: string[]): Failure {
  const { message, next_step, last_probe } = failure;
  return { ...failure, ...redactIn({ message, next_step, last_probe }, (text) => redactText(text, secrets)) };
}

function openBuildLog(ctx: EngineContext, secrets: string[], build_id: string): LogWriter {
  return openLog(path.join(ctx.folders.build_logs, `${build_id}.jsonl`), {
    max_bytes: ctx.limits.build.log_bytes * 2,
    secrets,
    on_full: 'stop',
  });
}

interface Ended {
  stage: Stage;
  duration_ms: number;
}

/** Times the stages of one turn and aborts it when one takes longer than its deadline. */
class StageTimer {
  readonly #turn: Turn;
  #now: { stage: Stage; started: number; deadline: NodeJS.Timeout } | null = null;

  constructor(turn: Turn) {
    this.#turn = turn;
  }

  enter(stage: Stage, deadline_ms: number): Ended | null {
    const ended = this.end();
    const over = () => this.#turn.abort.abort(new StageDeadline(stage, deadline_ms));
    this.#now = { stage, started: performance.now(), deadline: setTimeout(over, deadline_ms) };
    return ended;
  }

  end(): Ended | null {
    if (this.#now === null) return null;
    clearTimeout(this.#now.deadline);
    const ended = { stage: this.#now.stage, duration_ms: performance.now() - this.#now.started };
    this.#now = null;
    return ended;
  }
}
