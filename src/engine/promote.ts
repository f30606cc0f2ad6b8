/**
 * Making an existing version active: promote and rollback. A static version, and a dynamic one whose instances are
 * still warm, switch inside the request; a stopped one is started and proved first, by an operation, while production
 * stays as it is.
 */

import type { Deployment } from '../domain/deployment.ts';
import { KilnError } from '../domain/errors.ts';
import type { Operation, SwitchKind } from '../domain/operation.ts';
import type { Release } from '../domain/release.ts';
import { isPromotable, type Version } from '../domain/version.ts';
import { switchVersions } from '../pipeline/5-promotion.ts';
import { Unproved } from '../pipeline/unproved.ts';
import { openEnv } from '../pipeline/version-env.ts';
import type { Conn, Trx } from '../store/db.ts';
import { deploymentById, lockLivingDeployment, takeSeq } from '../store/deployment.ts';
import { appendEvent } from '../store/event.ts';
import { type KeyScope, recordSubject } from '../store/idempotency.ts';
import { unstoppedInstances } from '../store/instance.ts';
import { holdObjects } from '../store/object.ts';
import { finishOperation, insertOperation } from '../store/operation.ts';
import { objectsOfRelease, releaseById } from '../store/release.ts';
import { transact } from '../store/transact.ts';
import { type RunFacts, runFacts } from '../store/version.ts';
import type { EngineContext } from './context.ts';
import type { SwitchChange } from './engine.ts';
import type { Supervisor } from './instances.ts';
import { type Queue, refuseTooMany } from './queue.ts';

export interface Intent {
  kind: SwitchKind;
  idempotency: KeyScope | null;
}

/** An in-process edge takes the new routes within milliseconds; it must not hold up the answer for ever. */
const EDGE_ACK_MS = 5000;

interface AcceptedSwitch {
  operation: Operation;
  changes: SwitchChange[];
  /** As they are after the switch; null when it is yet to come. */
  done: { deployment: Deployment; version: Version } | null;
}

/** Either the switch is done, or an operation that starts and proves the version is accepted. */
export async function acceptSwitch(
  ctx: EngineContext,
  queue: Queue,
  supervisor: Supervisor,
  version: Version,
  intent: Intent,
): Promise<AcceptedSwitch> {
  await refuseUnlessWhole(ctx, version);
  const ready_now = version.kind === 'static' || (await hasProvedInstances(ctx, supervisor, version));
  const accept = (at_once: boolean) => accepted(ctx, queue, version, intent, at_once);
  const { operation, changes, switched } = await accept(ready_now).catch((error) => {
    // They answered a moment ago; of those that are left, an operation makes enough.
    if (error instanceof Unproved) return accept(false);
    throw error;
  });
  if (switched === null) return { operation, changes, done: null };
  // Again, for the generation of the routes is written last of all.
  const deployment = (await deploymentById(ctx.db, version.deployment_id))!;
  await ctx.edge.waitForGeneration(deployment.route_generation, EDGE_ACK_MS);
  void supervisor.adjust(deployment.id).catch(() => {});
  return { operation, changes, done: { deployment, version: switched } };
}

/** The intent, numbered, with its switch or the wake-up of whoever makes it. @throws Unproved only if `at_once` */
function accepted(
  ctx: EngineContext,
  queue: Queue,
  version: Version,
  intent: Intent,
  at_once: boolean,
): Promise<{ operation: Operation; changes: SwitchChange[]; switched: Version | null }> {
  return transact(ctx.db, async (trx) => {
    const deployment = await lockLivingDeployment(trx, version.deployment_id);
    // One that is done at once leaves nothing waiting behind.
    if (!at_once) await refuseTooMany(trx, deployment, 'switch', ctx.bounds.queued_operations);
    const seq = await takeSeq(trx, deployment.id);
    const changes = await changesBetween(trx, ctx, deployment.active_version_id, version.id);
    const operation = await insertOperation(trx, {
      id: ctx.newId('op'),
      tenant_id: version.tenant_id,
      kind: intent.kind,
      deployment_id: deployment.id,
      version_id: version.id,
      seq,
    });
    if (intent.idempotency) await recordSubject(trx, intent.idempotency, { operation_id: operation.id });
    if (at_once) return { changes, ...(await switchNow(trx, ctx, deployment, operation)) };
    await queue.send(trx, operation);
    return { operation, changes, switched: null };
  });
}

/** By its rows alone. Errors: VERSION_NOT_READY, ARTIFACT_GONE. */
export async function refuseUnpromotable(db: Conn, version: Version): Promise<Release> {
  if (!isPromotable(version.state) || version.release_id === null)
    throw new KilnError(
      'VERSION_NOT_READY',
      `Version ${version.version_number} (${version.id}) is ${version.state}; only a ready or archived version can become active.`,
      { details: { state: version.state } },
    );
  const release = await releaseById(db, version.release_id);
  if (release.collected_at !== null) throw artifactGone(version);
  return release;
}

function artifactGone(version: Version): KilnError {
  return new KilnError(
    'ARTIFACT_GONE',
    `The artifact of version ${version.version_number} was collected by retention; publish again, or \`kiln retry ${version.id}\`.`,
  );
}

async function refuseUnlessWhole(ctx: EngineContext, version: Version): Promise<void> {
  const release = await refuseUnpromotable(ctx.db, version);
  // Held before it is looked at: from then on retention keeps off (I2).
  if ((await held(ctx, release)) !== null) throw artifactGone(version);
  const verdict = await ctx.verifier.verify(release);
  if (verdict === 'gone') throw artifactGone(version);
  if (verdict === 'corrupt')
    throw new KilnError(
      'STORAGE_FAILED',
      `The stored artifact of version ${version.version_number} does not match its digest; production is unchanged. Publish again.`,
    );
}

function held(ctx: EngineContext, release: Release): Promise<string | null> {
  return transact(ctx.db, (trx) => holdObjects(trx, ctx.objects, objectsOfRelease(release)));
}

/** Enough instances of the version run and answer this very moment. */
async function hasProvedInstances(
  ctx: EngineContext,
  supervisor: Supervisor,
  version: Version,
): Promise<boolean> {
  const rows = await unstoppedInstances(ctx.db, { version_id: version.id });
  const candidates = rows.filter(
    (row) => (row.role === 'warm' || row.role === 'live') && row.state === 'healthy',
  );
  if (candidates.length === 0) return false;
  const deployment = await deploymentById(ctx.db, version.deployment_id);
  return candidates.length >= wantedReplicas(deployment) && supervisor.stillHealthy(candidates);
}

function wantedReplicas(deployment: Deployment | undefined): number {
  return Math.max(1, deployment?.desired_replicas ?? 1);
}

async function switchNow(
  trx: Trx,
  ctx: EngineContext,
  deployment: Deployment,
  operation: Operation,
): Promise<{ operation: Operation; switched: Version }> {
  const switched = await switchVersions(trx, deployment, {
    version_id: operation.version_id,
    seq: operation.seq,
    operation_id: operation.id,
    proved: wantedReplicas(deployment),
  });
  // The number was taken under the lock that is still held: none in force can be higher.
  if (switched === null) throw new Error(`a fresh sequence number did not switch ${deployment.id}`);
  const finished = await finishOperation(trx, operation.id, {
    state: 'succeeded',
    promoted: true,
    superseded: false,
    failure: null,
  });
  const ids = { tenant_id: switched.tenant_id, deployment_id: deployment.id, version_id: switched.id };
  for (const type of [
    operation.kind === 'rollback' ? 'deployment.rolled_back' : 'deployment.published',
    'deployment.live',
  ] as const)
    await appendEvent(trx, {
      id: ctx.newId('evt'),
      ...ids,
      type,
      operation_id: operation.id,
      data: { version_number: switched.version_number, kind: operation.kind },
    });
  return { operation: finished!, switched };
}

/** What a person should know before production runs on another version: more than the code may differ. */
async function changesBetween(
  trx: Trx,
  ctx: EngineContext,
  active_version_id: string | null,
  target_id: string,
): Promise<SwitchChange[]> {
  if (active_version_id === null || active_version_id === target_id) return [];
  const facts = await runFacts(trx, [active_version_id, target_id]);
  const [active, target] = [facts.get(active_version_id)!, facts.get(target_id)!];
  const changes: SwitchChange[] = [];
  const compare = (what: SwitchChange['what'], from: unknown, to: unknown) => {
    if (from !== to) changes.push({ what, name: null, from: text(from), to: text(to) });
  };
  compare('kind', active.kind, target.kind);
  compare('start_command', active.plan?.start ?? null, target.plan?.start ?? null);
  compare('port', active.run_settings?.port ?? null, target.run_settings?.port ?? null);
  compare(
    'health_check_path',
    active.run_settings?.health_check_path ?? null,
    target.run_settings?.health_check_path ?? null,
  );
  const env = (id: string, { env_encrypted }: RunFacts) => openEnv(ctx.vault, id, 'run', env_encrypted).vars;
  const [from, to] = [env(active_version_id, active), env(target_id, target)];
  for (const name of [...new Set([...Object.keys(from), ...Object.keys(to)])].sort()) {
    if (from[name] === to[name]) continue;
    // Names only: the values may be secrets.
    const said = (value: string | undefined) => (value === undefined ? null : 'set');
    changes.push({
      what: 'env',
      name,
      from: said(from[name]),
      to: to[name] !== undefined && from[name] !== undefined ? 'another value' : said(to[name]),
    });
  }
  return changes;
}

function text(value: unknown): string | null {
  return value === null || value === undefined ? null : String(value);
}
