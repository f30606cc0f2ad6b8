/**
 * Stage 5: the switch. One transaction makes the version ready, moves the pointer if no newer intent is in force
 * (I4), changes the roles of the instances, and finishes the operation. It is undone as a whole when the instances that
 * were proved are not there any more (I2). The edge follows; nothing old is touched here.
 */
import type { Deployment } from '../domain/deployment.ts';
import type { Instance } from '../domain/instance.ts';
import type { Version } from '../domain/version.ts';
import type { Trx } from '../store/db.ts';
import { setDeploymentState, switchActiveVersion } from '../store/deployment.ts';
import { lockUnstopped, retireGating, setInstanceRole } from '../store/instance.ts';
import { recordPromoted, recordSuperseded, setVersionState, versionById } from '../store/version.ts';
import type { Healthy } from './4-health.ts';
import { failed, ok, type Result, type Run } from './run.ts';
import { Unproved } from './unproved.ts';

export interface Promoted {
  promoted: boolean;
  superseded: boolean;
}

const PROMOTION_MS = 60_000;

export async function promote(run: Run, healthy: Healthy): Promise<Result<Promoted>> {
  await run.enter('promotion', PROMOTION_MS);
  let promoted: Promoted;
  try {
    promoted = await run.recordOutcome((trx, deployment) => recordPromotion(trx, run, healthy, deployment));
  } catch (error) {
    if (error instanceof Unproved) return failed(error.failure);
    throw error;
  }
  run.log.note(
    promoted.promoted
      ? `promotion: version ${run.version.version_number} is live`
      : promoted.superseded
        ? 'promotion: ready, but a newer publish, promote or rollback is in force; production stays as it is'
        : 'promotion: not asked for; the version is ready to be promoted',
  );
  return ok(promoted);
}

async function recordPromotion(
  trx: Trx,
  run: Run,
  healthy: Healthy,
  deployment: Deployment,
): Promise<Promoted> {
  const wanted = run.operation.kind !== 'publish' || run.version.request.promote;
  const version = await versionById(trx, run.version.id);
  if (version.state === 'building') {
    await setVersionState(trx, version.id, 'ready');
    await run.event(trx, 'deployment.version_ready', { release_id: healthy.release.id });
  }
  const { seq, id: operation_id } = run.operation;
  const of = { version_id: version.id, seq, operation_id, proved: healthy.proved };
  const is_switched = wanted && (await switchVersions(trx, deployment, of)) !== null;
  const outcome = { promoted: is_switched, superseded: wanted && !is_switched };
  if (!is_switched) await stayBehind(trx, run, deployment, outcome.superseded);
  const type = is_switched
    ? 'deployment.published'
    : outcome.superseded
      ? 'deployment.superseded'
      : 'deployment.updated';
  const { version_number } = version;
  await run.event(trx, type, { version_number, kind: run.operation.kind });
  if (is_switched) await run.event(trx, 'deployment.live', { version_number });
  await run.finish(trx, { state: 'succeeded', ...outcome, failure: null });
  return outcome;
}

/**
 * The switch and what belongs to it. The caller holds the lock of the deployment, and gives it as it is under that.
 * `proved`: how many instances were, just now; as many of them as are still wanted must be healthy at this very moment.
 * (Who asked for more meanwhile gets them from the reconciler.) Answers the version as it is then; null when a newer
 * intent is in force.
 * @throws Unproved
 */
export async function switchVersions(
  trx: Trx,
  deployment: Deployment,
  of: { version_id: string; seq: number; operation_id: string; proved: number },
): Promise<Version | null> {
  const { version_id } = of;
  const from = deployment.active_version_id;
  if (!(await switchActiveVersion(trx, { deployment_id: deployment.id, ...of }))) return null;
  if (from !== null && from !== version_id) await setVersionState(trx, from, 'archived');
  let version = await recordPromoted(trx, version_id);
  if (version.state === 'archived') version = await setVersionState(trx, version_id, 'ready');

  const rows = await lockUnstopped(trx, { deployment_id: deployment.id });
  const proved = provedOf(rows, of);
  const wanted = version.kind === 'dynamic' ? Math.max(1, deployment.desired_replicas) : 0;
  const needed = Math.min(wanted, Math.max(1, of.proved));
  if (proved.length < needed) {
    const own = rows.filter((row) => row.operation_id === of.operation_id);
    throw new Unproved({ stage: 'promotion', wanted: needed, proved: proved.length, rows: own });
  }
  const live = new Set(proved.slice(0, wanted).map((row) => row.id));
  for (const row of rows) {
    const role = live.has(row.id) ? 'live' : roleBeside(row, of);
    await setInstanceRole(trx, row, role);
  }
  return version;
}

/** Those of the version that answer, the ones that were proved for this very switch first. */
function provedOf(rows: readonly Instance[], of: { version_id: string; operation_id: string }): Instance[] {
  const order = (row: Instance) => (row.operation_id === of.operation_id ? 0 : row.role === 'live' ? 1 : 2);
  return rows
    .filter((row) => row.version_id === of.version_id && row.state === 'healthy')
    .filter(
      (row) =>
        row.role === 'warm' ||
        row.role === 'live' ||
        (row.role === 'gating' && row.operation_id === of.operation_id),
    )
    .sort((a, b) => order(a) - order(b));
}

/** What becomes of those that do not go live: the version before stays warm, others of this version are of no use. */
function roleBeside(row: Instance, of: { version_id: string; operation_id: string }): Instance['role'] {
  if (row.role === 'gating') return row.operation_id === of.operation_id ? 'retired' : 'gating';
  if (row.version_id === of.version_id) return 'retired';
  return row.role === 'live' ? 'warm' : row.role;
}

async function stayBehind(trx: Trx, run: Run, deployment: Deployment, is_superseded: boolean): Promise<void> {
  if (is_superseded) await recordSuperseded(trx, run.version.id);
  if (deployment.active_version_id === null) await setDeploymentState(trx, deployment.id, 'pending');
  await retireGating(trx, run.operation.id);
}
