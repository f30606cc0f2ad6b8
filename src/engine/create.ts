/** The engine behind its facade: puts the parts together, and does itself what is one transaction. */

import os from 'node:os';
import path from 'node:path';
import type { Deployment } from '../domain/deployment.ts';
import { KilnError } from '../domain/errors.ts';
import { isFinished, type Operation } from '../domain/operation.ts';
import type { Release } from '../domain/release.ts';
import type { Sandbox } from '../domain/sandbox.ts';
import type { Version } from '../domain/version.ts';
import { notify, type Trx } from '../store/db.ts';
import {
  deploymentById,
  lockDeployment,
  lockLivingDeployment,
  markDeploymentDeleted,
  setReplicas,
} from '../store/deployment.ts';
import { removeDomainsOf } from '../store/domain.ts';
import { registerEngine, removeEngine } from '../store/engine.ts';
import { deleteEnvVar, setEnvVar } from '../store/env-var.ts';
import { appendEvent } from '../store/event.ts';
import { unlockAllIdempotent } from '../store/idempotency.ts';
import { lockUnstopped, setInstanceRole } from '../store/instance.ts';
import {
  expireLeasesOf,
  finishOperation,
  getOperation,
  nextPublish,
  requestCancel,
  unfinishedOf,
} from '../store/operation.ts';
import { transact } from '../store/transact.ts';
import { versionById } from '../store/version.ts';
import { Collector } from './collector.ts';
import type { EngineContext } from './context.ts';
import { type DoctorReport, examine } from './doctor.ts';
import type { Accepted, Engine, ExecRequest, PublishInput, Switched, WorkspaceSource } from './engine.ts';
import { exportRelease, type PushRequest, pushRelease } from './images.ts';
import { instanceLogPath } from './instance-machine.ts';
import { Supervisor } from './instances.ts';
import { OperationWaiters } from './operation-waiters.ts';
import { acceptSwitch, type Intent } from './promote.ts';
import { acceptPublish, acceptRetry } from './publish.ts';
import { makeQueue, type Queue } from './queue.ts';
import { adoptInstances, bookStrayObjects, Reconciler, sweepFolders } from './reconcile.ts';
import { collect } from './retention.ts';
import { SandboxLogs } from './sandbox-logs.ts';
import { discardSandbox, fillSandbox, snapshotSandbox } from './sandbox-snapshots.ts';
import {
  type Commands,
  destroySandbox,
  exec,
  pauseSandbox,
  RunningCommands,
  workspaceDir,
} from './sandboxes.ts';
import { sweepImages } from './scratch.ts';
import { acceptVerify } from './verify.ts';
import { WebhookSender } from './webhooks.ts';
import { cancelled, recordFailure, Worker } from './worker.ts';

export interface EngineOptions {
  ctx: EngineContext;
  /** What works as isolation and what does not, for the doctor. */
  drivers: () => Promise<DoctorReport['isolation']['drivers']>;
}

export class LocalEngine implements Engine {
  readonly id: string;
  readonly #ctx: EngineContext;
  readonly #drivers: EngineOptions['drivers'];
  readonly #queue: Queue;
  readonly #supervisor: Supervisor;
  readonly #worker: Worker;
  readonly #reconciler: Reconciler;
  readonly #waiters: OperationWaiters;
  readonly #webhooks: WebhookSender;
  readonly #commands: Commands;
  readonly #collector: Collector;

  constructor({ ctx, drivers }: EngineOptions) {
    this.id = ctx.id;
    this.#ctx = ctx;
    this.#drivers = drivers;
    this.#queue = makeQueue(ctx.database, { concurrency: ctx.bounds.concurrency, say: ctx.say });
    this.#supervisor = new Supervisor(ctx);
    this.#worker = new Worker(ctx, this.#supervisor, this.#queue);
    this.#reconciler = new Reconciler(ctx, this.#queue, this.#supervisor);
    this.#waiters = new OperationWaiters(ctx);
    this.#webhooks = new WebhookSender(ctx);
    this.#commands = { logs: new SandboxLogs(ctx), running: new RunningCommands() };
    this.#collector = new Collector(ctx);
  }

  async prepare(): Promise<void> {
    const { db, database, driver, builder, runtime, id } = this.#ctx;
    await driver.sweep(new Set());
    if (builder !== driver) await builder.sweep(new Set());
    await expireLeasesOf(db, id);
    if (database.kind === 'pglite') await unlockAllIdempotent(db);
    await removeEngine(db, id);
    await registerEngine(db, { id, host: os.hostname(), pid: process.pid });
    await adoptInstances(this.#ctx, 'starting', this.#supervisor);
    await runtime?.sweep(this.#supervisor.here());
    await sweepFolders(this.#ctx);
    await bookStrayObjects(this.#ctx);
    await sweepImages(this.#ctx);
  }

  async start(): Promise<void> {
    await this.#waiters.start();
    await this.#queue.start(this.#worker);
    this.#reconciler.start();
    await this.#webhooks.start();
    void this.#reconciler.pass();
    this.#collector.start();
  }

  async stop(): Promise<void> {
    await this.#collector.stop();
    await this.#webhooks.stop();
    await this.#reconciler.stop();
    await this.#worker.stop();
    await this.#supervisor.stop();
    await this.#queue.stop();
    await this.#waiters.stop();
    await removeEngine(this.#ctx.db, this.id);
  }

  async publish(input: PublishInput): Promise<Accepted> {
    if (input.sandbox.state !== 'running')
      throw new KilnError(
        'SANDBOX_NOT_RUNNING',
        `The sandbox ${input.sandbox.name} is ${input.sandbox.state}.`,
      );
    const workspace_dir = await workspaceDir(this.#ctx, input.sandbox);
    return acceptPublish(this.#ctx, this.#queue, { ...input, workspace_dir });
  }

  async retry(version: Version, by: Parameters<Engine['retry']>[1]): Promise<Accepted> {
    const deployment = await this.#deployment(version.deployment_id);
    return acceptRetry(this.#ctx, this.#queue, { deployment, version, ...by });
  }

  verify(version: Version, by: Parameters<Engine['verify']>[1]): Promise<Operation> {
    return acceptVerify(this.#ctx, this.#queue, version, by.idempotency);
  }

  exportRelease(release: Release) {
    return exportRelease(this.#ctx, release);
  }

  pushRelease(release: Release, to: PushRequest, signal: AbortSignal) {
    return pushRelease(this.#ctx, release, to, signal);
  }

  async acceptedBefore(subject: Record<string, unknown>): Promise<Accepted | null> {
    if (typeof subject.operation_id !== 'string') return null;
    const operation = await getOperation(this.#ctx.db, subject.operation_id);
    if (!operation) return null;
    return {
      operation,
      version: await versionById(this.#ctx.db, operation.version_id),
      secrets_left_out: [],
    };
  }

  async promote(version: Version, by: Intent & { wait_ms: number }): Promise<Switched> {
    const accepted = await acceptSwitch(this.#ctx, this.#queue, this.#supervisor, version, by);
    const operation = accepted.done
      ? accepted.operation
      : await this.waitForOperation(accepted.operation.id, by.wait_ms);
    if (operation.state === 'failed' || operation.state === 'cancelled')
      throw new KilnError(
        'HEALTH_GATE_FAILED',
        `Version ${version.version_number} was not switched to: ${operation.failure?.message ?? operation.state}`,
        { details: { operation_id: operation.id, failure: operation.failure } },
      );
    if (operation.superseded)
      throw new KilnError(
        'SUPERSEDED',
        'A newer publish, promote or rollback is in force; this one did not switch.',
      );
    const now = accepted.done ?? {
      deployment: await this.#deployment(version.deployment_id),
      version: await versionById(this.#ctx.db, version.id),
    };
    return { ...now, operation, changes: accepted.changes, pending: !isFinished(operation.state) };
  }

  /** A queued one ends here; a running one when its worker has noticed, within seconds. */
  async cancel(operation_id: string): Promise<Operation> {
    const { db } = this.#ctx;
    await transact(db, async (trx) => {
      const found = await getOperation(trx, operation_id);
      if (!found) throw new KilnError('NOT_FOUND', `There is no operation ${operation_id}.`);
      await lockDeployment(trx, found.deployment_id);
      const operation = await requestCancel(trx, operation_id);
      if (!operation) throw await this.#finishedAlready(trx, operation_id);
      if (operation.state === 'queued') await this.#endQueued(trx, operation);
    });
    this.#worker.cancelled(operation_id);
    return this.waitForOperation(operation_id, 5000);
  }

  async #finishedAlready(trx: Trx, operation_id: string): Promise<KilnError> {
    const found = await getOperation(trx, operation_id);
    return new KilnError('CONFLICT', `The operation ${operation_id} has ${found?.state} already.`);
  }

  async #endQueued(trx: Trx, operation: Operation): Promise<void> {
    const failure = cancelled('queued');
    await recordFailure(trx, this.#ctx, operation, failure, 'cancelled');
    await finishOperation(trx, operation.id, {
      state: 'cancelled',
      promoted: false,
      superseded: false,
      failure,
    });
    const next = await nextPublish(trx, operation.deployment_id);
    if (next) await this.#queue.send(trx, next);
    await notify(trx, 'kiln_work', operation.id);
  }

  /** For a promoted one also until the edge of this process serves it: who is told "live" must find it live. */
  async waitForOperation(operation_id: string, timeout_ms: number, signal?: AbortSignal): Promise<Operation> {
    const operation = await this.#waiters.wait(operation_id, timeout_ms, signal);
    if (operation.promoted) {
      const deployment = await deploymentById(this.#ctx.db, operation.deployment_id);
      await this.#ctx.edge.waitForGeneration(deployment?.route_generation ?? 0, EDGE_ACK_MS);
    }
    return operation;
  }

  async scale(deployment: Deployment, replicas: number): Promise<Deployment> {
    if (replicas > this.#ctx.bounds.replicas)
      throw new KilnError('TOO_MANY', `At most ${this.#ctx.bounds.replicas} replicas per deployment.`);
    const updated = await transact(this.#ctx.db, async (trx) => {
      const row = await setReplicas(trx, deployment.id, replicas);
      await this.#tell(trx, row, 'deployment.scaled', { replicas });
      return row;
    });
    await this.#supervisor.adjust(deployment.id);
    return updated;
  }

  async removeDeployment(deployment: Deployment): Promise<void> {
    const running = await transact(this.#ctx.db, async (trx) => {
      await lockDeployment(trx, deployment.id);
      const unfinished = await unfinishedOf(trx, deployment.id);
      await markDeploymentDeleted(trx, deployment.id);
      await removeDomainsOf(trx, deployment.id);
      for (const operation of unfinished) {
        await requestCancel(trx, operation.id);
        if (operation.state === 'queued') await this.#endQueued(trx, operation);
      }
      for (const instance of await lockUnstopped(trx, { deployment_id: deployment.id }))
        if (instance.role !== 'gating') await setInstanceRole(trx, instance, 'retired');
      await this.#tell(trx, deployment, 'deployment.deleted', { slug: deployment.slug });
      return unfinished.filter((operation) => operation.state === 'running');
    });
    for (const operation of running) this.#worker.cancelled(operation.id);
    void this.#supervisor.reconcile();
  }

  async setEnv(deployment: Deployment, vars: Parameters<Engine['setEnv']>[1]): Promise<void> {
    await transact(this.#ctx.db, async (trx) => {
      await lockLivingDeployment(trx, deployment.id);
      for (const row of vars) await setEnvVar(trx, this.#ctx.vault, { ...row, deployment_id: deployment.id });
      await this.#tell(trx, deployment, 'deployment.env_changed', { names: vars.map((row) => row.name) });
    });
  }

  async unsetEnv(deployment: Deployment, environment: string, name: string): Promise<boolean> {
    return transact(this.#ctx.db, async (trx) => {
      const found = await deleteEnvVar(trx, deployment.id, environment, name);
      if (found) await this.#tell(trx, deployment, 'deployment.env_changed', { names: [name] });
      return found;
    });
  }

  workspaceDir(sandbox: Sandbox): Promise<string> {
    return workspaceDir(this.#ctx, sandbox);
  }

  destroySandbox(sandbox: Sandbox): Promise<void> {
    return destroySandbox(this.#ctx, this.#commands, sandbox);
  }

  pauseSandbox(sandbox: Sandbox): Promise<Sandbox> {
    return pauseSandbox(this.#ctx, this.#commands, sandbox);
  }

  snapshotSandbox(sandbox: Sandbox) {
    return snapshotSandbox(this.#ctx, sandbox);
  }

  fillSandbox(sandbox_id: string, from: WorkspaceSource) {
    return fillSandbox(this.#ctx, sandbox_id, from);
  }

  discardSandbox(sandbox_id: string) {
    return discardSandbox(this.#ctx, sandbox_id);
  }

  exec(sandbox: Sandbox, request: ExecRequest) {
    return exec(this.#ctx, this.#commands, sandbox, request);
  }

  buildLogPath(build_id: string): string {
    return path.join(this.#ctx.folders.build_logs, `${build_id}.jsonl`);
  }

  sandboxLogPath(sandbox_id: string): string {
    return this.#commands.logs.path(sandbox_id);
  }

  instanceLogPath(instance_id: string): string {
    return instanceLogPath(this.#ctx, instance_id);
  }

  publicUrl(slug: string, host_label: string): string {
    return this.#ctx.urlOf(slug, host_label);
  }

  gc(options: { dry_run: boolean }) {
    return collect(this.#ctx, options);
  }

  async doctor(): Promise<DoctorReport> {
    return examine(this.#ctx, await this.#drivers());
  }

  async #deployment(id: string): Promise<Deployment> {
    const deployment = await deploymentById(this.#ctx.db, id);
    if (!deployment) throw new KilnError('NOT_FOUND', `There is no deployment ${id}.`);
    return deployment;
  }

  async #tell(
    trx: Trx,
    deployment: Deployment,
    type: Parameters<typeof appendEvent>[1]['type'],
    data: Record<string, unknown>,
  ): Promise<void> {
    const { tenant_id, id: deployment_id } = deployment;
    await appendEvent(trx, { id: this.#ctx.newId('evt'), tenant_id, deployment_id, type, data });
  }
}

/** An edge that does not follow within this time is its own trouble. */
const EDGE_ACK_MS = 5000;
