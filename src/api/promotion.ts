/** Promote and rollback: an existing version becomes active, without a build. */
import type { Deployment } from '../domain/deployment.ts';
import { KilnError } from '../domain/errors.ts';
import { isFinished } from '../domain/operation.ts';
import type { Version } from '../domain/version.ts';
import { refuseUnpromotable } from '../engine/promote.ts';
import { deploymentById } from '../store/deployment.ts';
import { getOperation } from '../store/operation.ts';
import { previousVersion, versionByRelease } from '../store/version.ts';
import { askForApproval } from './approval.ts';
import { type AnyCall, data, handle, type Mounted, type Reply } from './call.ts';
import * as contract from './contract/promotion.ts';
import { presentDeployment } from './deployment.ts';
import { findDeployment, findRelease, findVersion, notFound } from './find.ts';
import { waitMs } from './wait.ts';

/** Held this long without being asked: most clients give up at 30 s. */
const DEFAULT_WAIT_MS = 25_000;

export async function switchTo(
  call: AnyCall,
  version: Version,
  kind: 'promote' | 'rollback',
  wait: number | undefined,
): Promise<Reply> {
  const { engine, database } = call.deps;
  const wait_ms = waitMs(call.request, wait, DEFAULT_WAIT_MS);
  const previous = call.idempotency?.previous;
  const known = previous ? await engine.acceptedBefore(previous) : null;
  if (known) {
    const operation = await engine.waitForOperation(known.operation.id, wait_ms, call.signal);
    const deployment = (await deploymentById(database.db, known.version.deployment_id))!;
    if (operation.failure)
      throw new KilnError('HEALTH_GATE_FAILED', operation.failure.message, {
        details: { failure: operation.failure },
      });
    return answer(call, deployment, known.version, operation.id, !isFinished(operation.state), []);
  }
  if (!call.caller.may('deployments:promote')) {
    // Nobody is asked to approve what the engine would refuse.
    await refuseUnpromotable(database.db, version);
    await askForApproval(call, version, kind);
  }
  const done = await engine.promote(version, {
    kind,
    idempotency: call.idempotency?.scope ?? null,
    wait_ms,
  });
  return answer(call, done.deployment, done.version, done.operation.id, done.pending, done.changes);
}

async function answer(
  call: AnyCall,
  deployment: Deployment,
  version: Version,
  operation_id: string,
  pending: boolean,
  changes: unknown[],
): Promise<Reply> {
  const shown = await presentDeployment(call, deployment);
  return data({ ...shown, operation_id, version_id: version.id, pending, changes }, pending ? 202 : 200);
}

async function ofRelease(call: AnyCall, deployment_id: string, release_id: string): Promise<Version> {
  const release = await findRelease(call, deployment_id, release_id);
  const version = await versionByRelease(call.deps.database.db, deployment_id, release.id);
  if (!version) throw notFound('version of release', release_id);
  return version;
}

async function rollbackTarget(
  call: AnyCall,
  deployment: Deployment,
  body: { version_id?: string | null; release_id?: string | null },
): Promise<Version> {
  if (body.version_id) return findVersion(call, deployment.id, body.version_id);
  if (body.release_id) return ofRelease(call, deployment.id, body.release_id);
  const version = await previousVersion(call.deps.database.db, deployment.id, deployment.active_version_id);
  if (version) return version;
  throw new KilnError(
    'NO_PREVIOUS_VERSION',
    `${deployment.slug} has had no other live version; there is nothing to roll back to.`,
  );
}

/** A promotion that is still proving its instances must not be started a second time by a repeated request. */
async function onItsWay(call: AnyCall, subject: Record<string, unknown> | null): Promise<boolean> {
  if (typeof subject?.operation_id !== 'string') return false;
  const operation = await getOperation(call.deps.database.db, subject.operation_id);
  return operation !== undefined && !isFinished(operation.state);
}

export const promotionHandlers: Mounted[] = [
  handle(contract.rollback, async (call) => {
    const deployment = await findDeployment(call, call.params.id);
    return switchTo(call, await rollbackTarget(call, deployment, call.body), 'rollback', call.query.wait);
  }),
  handle(
    contract.promoteVersion,
    async (call) => {
      const deployment = await findDeployment(call, call.params.id);
      const version = await findVersion(call, deployment.id, call.params.version_id);
      return switchTo(call, version, 'promote', call.query.wait);
    },
    {
      still_true: async (call, subject) =>
        (await onItsWay(call, subject)) ||
        (await findDeployment(call, call.params.id)).active_version_id === call.params.version_id,
    },
  ),
  handle(
    contract.promoteRelease,
    async (call) => {
      const deployment = await findDeployment(call, call.params.id);
      return switchTo(
        call,
        await ofRelease(call, deployment.id, call.params.release_id),
        'promote',
        call.query.wait,
      );
    },
    {
      // Some clients' default key is the same for every promotion of a release: A, B, A again must switch again.
      still_true: async (call, subject) => {
        if (await onItsWay(call, subject)) return true;
        const { active_version_id } = await findDeployment(call, call.params.id);
        if (active_version_id === null) return false;
        const active = await findVersion(call, call.params.id, active_version_id);
        return active.release_id === call.params.release_id;
      },
    },
  ),
];
