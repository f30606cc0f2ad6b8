/** Whose key this is, and the groups below it. */
import { getTenant, listProjects, listWorkspaces } from '../store/tenant.ts';
import { data, handle, type Mounted } from './call.ts';
import * as contract from './contract/tenant.ts';
import { iso, notFound } from './find.ts';

export const tenantHandlers: Mounted[] = [
  handle(contract.getTenant, async (call) => {
    const tenant = await getTenant(call.deps.database.db, call.caller.tenant_id);
    if (!tenant) throw notFound('tenant', call.caller.tenant_id);
    return data({
      id: tenant.id,
      name: tenant.name,
      slug: tenant.slug,
      plan: 'self-hosted',
      credit_balance: 0,
      inserted_at: iso(tenant.created_at),
    });
  }),
  handle(contract.listWorkspaces, async (call) => {
    const { db } = call.deps.database;
    const { tenant_id, project_id } = call.caller;
    const workspaces = await listWorkspaces(db, tenant_id);
    if (project_id === null) return data(workspaces);
    const own = (await listProjects(db, tenant_id)).find((project) => project.id === project_id);
    return data(workspaces.filter((workspace) => workspace.id === own?.workspace_id));
  }),
  handle(contract.listProjects, async (call) => {
    const { tenant_id, project_id } = call.caller;
    const projects = await listProjects(call.deps.database.db, tenant_id, call.query.workspace_id);
    return data(project_id === null ? projects : projects.filter((project) => project.id === project_id));
  }),
];
