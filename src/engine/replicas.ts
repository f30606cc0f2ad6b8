/** How many instances a deployment should have, and which warm ones have had their time. */
import type { Instance } from '../domain/instance.ts';
import { lockDeployment } from '../store/deployment.ts';
import { insertInstance, lockInstance, lockUnstopped, setInstanceRole } from '../store/instance.ts';
import { transact } from '../store/transact.ts';
import { versionById } from '../store/version.ts';
import type { EngineContext } from './context.ts';

/** Warm instances whose time is over, or that belong to more replaced versions than are kept. Pure. */
export function warmToEnd(
  rows: readonly Instance[],
  of: { now_ms: number; warm_versions: number; warm_ms: number },
): Set<string> {
  const over = new Set<string>();
  const newest = new Map<string, string[]>();
  const warm = rows.filter((row) => row.role === 'warm');
  // The role change is the last write to a warm row's updated_at; a later state change only makes it look younger.
  warm.sort((a, b) => b.updated_at.getTime() - a.updated_at.getTime());
  for (const row of warm) {
    const until = row.updated_at.getTime() + of.warm_ms;
    const versions = newest.get(row.deployment_id) ?? [];
    if (!versions.includes(row.version_id)) versions.push(row.version_id);
    newest.set(row.deployment_id, versions);
    if (until <= of.now_ms || versions.indexOf(row.version_id) >= of.warm_versions) over.add(row.id);
  }
  return over;
}

/** Unless it has gone live again meanwhile. */
export async function retireWarm(ctx: EngineContext, id: string): Promise<void> {
  await transact(ctx.db, async (trx) => {
    const row = await lockInstance(trx, id);
    if (row?.role === 'warm') await setInstanceRole(trx, row, 'retired');
  });
}

/** Rows for missing replicas of the active version are added, surplus ones retired, in one transaction. */
export async function adjustReplicas(ctx: EngineContext, deployment_id: string): Promise<void> {
  await transact(ctx.db, async (trx) => {
    const deployment = await lockDeployment(trx, deployment_id);
    if (deployment.active_version_id === null || deployment.deleted_at !== null) return;
    const version = await versionById(trx, deployment.active_version_id);
    if (version.kind !== 'dynamic' || version.release_id === null) return;
    const wanted = deployment.state === 'stopped' ? 0 : deployment.desired_replicas;
    const live = (await lockUnstopped(trx, { version_id: version.id })).filter((i) => i.role === 'live');
    // The first to go are those that do not serve.
    const idle = (row: Instance) => Number(row.state !== 'healthy');
    live.sort((a, b) => idle(a) - idle(b) || a.replica - b.replica);
    for (const row of live.slice(wanted)) await setInstanceRole(trx, row, 'retired');
    const used = new Set(live.map((row) => row.replica));
    let missing = wanted - live.length;
    for (let replica = 0; missing > 0; replica++) {
      if (used.has(replica)) continue;
      missing--;
      await insertInstance(trx, {
        id: ctx.newId('ins'),
        tenant_id: deployment.tenant_id,
        deployment_id,
        version_id: version.id,
        release_id: version.release_id,
        operation_id: null,
        engine_id: ctx.id,
        replica,
        role: 'live',
      });
    }
  });
}
