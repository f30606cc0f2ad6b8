/** Whether an app that names its port could start beside what is live: asked of the engine, when one runs. */
import { heldPortWarning, holderInWords } from '../../domain/held-port.ts';
import type { Plan } from '../../domain/plan.ts';
import type { Cli } from '../cli.ts';

/** A plan must not wait for an engine that does not answer. */
const TRAVEL = { timeout_ms: 2000, repeatable: false };
const MAX_DEPLOYMENTS = 100;

/** Null when nobody holds the port, or no engine can be asked. */
export async function heldPortNote(cli: Cli, plan: Plan): Promise<string | null> {
  const { port } = plan;
  if (port === null || plan.mode === 'dockerfile') return null;
  try {
    const client = await cli.connect();
    const { data } = await client.get('/deployments', { query: { limit: MAX_DEPLOYMENTS }, ...TRAVEL });
    for (const { id, slug, tenant_id, active_version_id } of data) {
      if (active_version_id === null) continue;
      const instances = (
        await client.get('/deployments/{id}/runtime-instances', { params: { id }, ...TRAVEL })
      ).data;
      const holder = instances.find((one) => one.port === port && one.role !== 'retired');
      if (!holder) continue;
      const params = { id, version_id: holder.version_id };
      const { version_number } = (
        await client.get('/deployments/{id}/versions/{version_id}', { params, ...TRAVEL })
      ).data;
      const words = { ...holder, version_number, deployment_slug: slug, tenant_id };
      return heldPortWarning({ port, by: holderInWords(words, { tenant_id, version_id: '' }) });
    }
  } catch {
    // Planning needs no engine.
  }
  return null;
}
