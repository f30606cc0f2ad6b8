/**
 * Stage 5: the switch. One transaction makes the version ready, moves the pointer if no newer intent is in force
 * (I4), changes the roles of the instances, and finishes the operation. The edge follows; nothing old is touched here.
 */
import type { Instance } from '../domain/instance.ts';
import type { Trx } from '../store/db.ts';
import { lockDeployment, setDeploymentState, switchActiveVersion } from '../store/deployment.ts';
import { setInstanceRole, unstoppedInstances } from '../store/instance.ts';
import { recordPromoted, recordSuperseded, setVersionState, versionById } from '../store/version.ts';
import type { Healthy } from './4-health.ts';
import { ok, type Result, type Run } from './run.ts';

export interface Promoted {
  promoted: boolean;
  superseded: boolean;
  generation: number;
}

const PROMOTION_MS = 60_000;

export async function promote(run: Run, healthy: Healthy): Promise<Result<Promoted>> {
  await run.enter('promotion', PROMOTION_MS);
  const wanted = run.operation.kind !== 'publish' || run.version.request.promote;
  const promoted = await run.record(async (trx) => {
    const deployment = await lockDeployment(trx, run.deployment.id);
    const version = await versionById(trx, run.version.id);
    if (version.state === 'building') {
      await setVersionState(trx, version.id, 'ready');
      await run.event(trx, 'deployment.version_ready', { release_id: healthy.release.id });
    }
    const result = wanted
      ? await switchVersions(trx, {
          deployment_id: deployment.id,
          version_id: version.id,
          seq: run.operation.seq,
          operation_id: run.operation.id,
          from: deployment.active_version_id,
        })
      : { switched: false, generation: 0 };
    if (!result.switched)
      await stayBehind(trx, run, { superseded: wanted, active: deployment.active_version_id });
    const outcome = { promoted: result.switched, superseded: wanted && !result.switched };
    await run.event(
      trx,
      result.switched
        ? 'deployment.published'
        : outcome.superseded
          ? 'deployment.superseded'
          : 'deployment.updated',
      { version_number: version.version_number, kind: run.operation.kind },
    );
    if (result.switched) await run.event(trx, 'deployment.live', { version_number: version.version_number });
    await run.finish(trx, { state: 'succeeded', ...outcome, failure: null });
    return { ...outcome, generation: result.generation };
  });
  run.log.note(
    promoted.promoted
      ? `promotion: version ${run.version.version_number} is live`
      : promoted.superseded
        ? 'promotion: ready, but a newer publish, promote or rollback is in force; production stays as it is'
        : 'promotion: not asked for; the version is ready to be promoted',
  );
  return ok(promoted);
}

/** The switch and what belongs to it. The caller holds the deployment's lock; `from` is what is active under it. */
export async function switchVersions(
  trx: Trx,
  of: {
    deployment_id: string;
    version_id: string;
    seq: number;
    operation_id: string | null;
    from: string | null;
  },
): Promise<{ switched: boolean; generation: number }> {
  const result = await switchActiveVersion(trx, of);
  if (!result.switched) return result;
  if (of.from !== null && of.from !== of.version_id) await setVersionState(trx, of.from, 'archived');
  if ((await versionById(trx, of.version_id)).state === 'archived')
    await setVersionState(trx, of.version_id, 'ready');
  await recordPromoted(trx, of.version_id);
  for (const instance of await unstoppedInstances(trx, { deployment_id: of.deployment_id }))
    await giveRole(trx, instance, of);
  return result;
}

/** The proved instances go live; those of the version before become warm; others of this version are of no use. */
async function giveRole(
  trx: Trx,
  instance: Instance,
  of: { version_id: string; operation_id: string | null },
): Promise<void> {
  const proved =
    instance.version_id === of.version_id &&
    instance.state === 'healthy' &&
    (instance.role === 'warm' || instance.role === 'live' || instance.operation_id === of.operation_id);
  if (proved) await setInstanceRole(trx, instance, 'live');
  else if (instance.role === 'live')
    await setInstanceRole(trx, instance, instance.version_id === of.version_id ? 'retired' : 'warm');
}

async function stayBehind(
  trx: Trx,
  run: Run,
  of: { superseded: boolean; active: string | null },
): Promise<void> {
  if (of.superseded) await recordSuperseded(trx, run.version.id);
  if (of.active === null) await setDeploymentState(trx, run.deployment.id, 'pending');
  for (const instance of await unstoppedInstances(trx, { version_id: run.version.id }))
    if (instance.role === 'gating' && instance.operation_id === run.operation.id)
      await setInstanceRole(trx, instance, 'retired');
}
