/** Runtime instances: running copies of a dynamic release, and their logs. */
import type { Deployment } from '../domain/deployment.ts';
import type { Instance } from '../domain/instance.ts';
import type { RunSettings } from '../domain/settings.ts';
import { getInstance, listInstances } from '../store/instance.ts';
import { runFacts } from '../store/version.ts';
import { type AnyCall, data, handle, type Mounted, reply } from './call.ts';
import * as contract from './contract/instance.ts';
import { findDeployment, iso, notFound, pageOf } from './find.ts';
import { followInstance, readLines, textOf } from './log.ts';
import { serviceId } from './service.ts';
import { eventStream, wantsStream } from './sse.ts';

const logPath = (i: Instance) => `/api/v1/deployments/${i.deployment_id}/runtime-instances/${i.id}/logs`;

function present(i: Instance, deployment: Deployment, settings: RunSettings | null): contract.InstanceView {
  return {
    id: i.id,
    tenant_id: i.tenant_id,
    deployment_id: i.deployment_id,
    version_id: i.version_id,
    release_id: i.release_id,
    environment_id: null,
    service_id: serviceId(i.deployment_id),
    external_workspace_id: deployment.external_workspace_id,
    external_user_id: deployment.external_user_id,
    external_project_id: deployment.external_project_id,
    host_id: i.engine_id,
    node_id: null,
    vm_id: null,
    role: i.role,
    state: i.state,
    desired_state: i.role === 'retired' ? 'stopped' : 'running',
    replica: i.replica,
    ip_address: i.host,
    port: i.port,
    health_check_path: settings?.health_check_path ?? null,
    last_health_check_at: iso(i.last_health_check_at),
    last_heartbeat_at: iso(i.last_health_check_at),
    started_at: iso(i.started_at),
    stopped_at: iso(i.stopped_at),
    error_message: i.failure?.message ?? null,
    failure: i.failure,
    restart_count: i.restart_count,
    cpu_limit_millicores: null,
    memory_limit_mb: settings ? Math.round(settings.memory_bytes / (1024 * 1024)) : null,
    runtime_log_path: logPath(i),
    metadata: {},
    created_at: iso(i.created_at),
    updated_at: iso(i.updated_at),
  };
}

async function presentAll(call: AnyCall, deployment: Deployment, rows: Instance[]) {
  const { db } = call.deps.database;
  const ids = [...new Set(rows.map((row) => row.version_id))];
  const facts = await runFacts(db, ids);
  return rows.map((row) => present(row, deployment, facts.get(row.version_id)?.run_settings ?? null));
}

async function find(call: AnyCall, deployment_id: string, id: string): Promise<Instance> {
  const row = await getInstance(call.deps.database.db, call.caller.tenant_id, id);
  if (!row || row.deployment_id !== deployment_id) throw notFound('runtime instance', id);
  return row;
}

export const instanceHandlers: Mounted[] = [
  handle(contract.listInstances, async (call) => {
    const deployment = await findDeployment(call, call.params.id);
    const page = await listInstances(call.deps.database.db, deployment.id, pageOf(call.query));
    return reply({ data: await presentAll(call, deployment, page.data), next_cursor: page.next_cursor });
  }),
  handle(contract.getInstance, async (call) => {
    const deployment = await findDeployment(call, call.params.id);
    const row = await find(call, deployment.id, call.params.instance_id);
    return data((await presentAll(call, deployment, [row]))[0]);
  }),
  handle(contract.getInstanceLogs, async (call) => {
    const deployment = await findDeployment(call, call.params.id);
    const row = await find(call, deployment.id, call.params.instance_id);
    const tail = call.query.lines ?? 100;
    if (wantsStream(call.request))
      return eventStream(call, async (send, signal) => {
        await followInstance(call, row, tail, send, signal);
        await send({ event: 'done', data: { type: 'done', result: { state: 'succeeded' } } });
      });
    const lines = await readLines(call.deps.engine.instanceLogPath(row.id), 'instance', row.id, tail);
    return data({
      runtime_instance_id: row.id,
      deployment_id: deployment.id,
      log_path: logPath(row),
      logs: textOf(lines),
    });
  }),
];
