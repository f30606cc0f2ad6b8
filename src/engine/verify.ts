/** Accepting a verify: an operation like any other, which waits for nobody and switches nothing. */
import { KilnError } from '../domain/errors.ts';
import type { Operation } from '../domain/operation.ts';
import { isPromotable, type Version } from '../domain/version.ts';
import { lockLivingDeployment, takeSeq } from '../store/deployment.ts';
import { type KeyScope, recordSubject } from '../store/idempotency.ts';
import { holdObjects } from '../store/object.ts';
import { insertOperation } from '../store/operation.ts';
import { objectsOfRelease, releaseById } from '../store/release.ts';
import { transact } from '../store/transact.ts';
import { versionSecrets } from '../store/version.ts';
import type { EngineContext } from './context.ts';
import { type Queue, refuseTooMany } from './queue.ts';

export async function acceptVerify(
  ctx: EngineContext,
  queue: Queue,
  version: Version,
  idempotency: KeyScope | null,
): Promise<Operation> {
  if (!isPromotable(version.state) || version.release_id === null)
    throw new KilnError(
      'VERSION_NOT_READY',
      `Version ${version.version_number} (${version.id}) is ${version.state}; only a ready or archived version has a release to compare with.`,
    );
  const release = await releaseById(ctx.db, version.release_id);
  const { source_key } = await versionSecrets(ctx.db, version.id);
  const { source_gone, gone } = await transact(ctx.db, async (trx) => ({
    source_gone: await holdObjects(trx, ctx.objects, [{ key: source_key, kind: 'source' }]),
    gone: release.collected_at ?? (await holdObjects(trx, ctx.objects, objectsOfRelease(release))),
  }));
  if (source_gone !== null || gone !== null)
    throw new KilnError(
      'ARTIFACT_GONE',
      `The ${source_gone !== null ? 'source snapshot' : 'artifact'} of version ${version.version_number} was collected by retention; there is nothing to compare.`,
    );
  return transact(ctx.db, async (trx) => {
    const deployment = await lockLivingDeployment(trx, version.deployment_id);
    await refuseTooMany(trx, deployment, 'publish', ctx.bounds.queued_operations);
    const operation = await insertOperation(trx, {
      id: ctx.newId('op'),
      tenant_id: version.tenant_id,
      kind: 'verify',
      deployment_id: deployment.id,
      version_id: version.id,
      seq: await takeSeq(trx, deployment.id),
    });
    if (idempotency) await recordSubject(trx, idempotency, { operation_id: operation.id });
    await queue.send(trx, operation);
    return operation;
  });
}
