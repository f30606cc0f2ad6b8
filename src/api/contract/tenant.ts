import { z } from '@hono/zod-openapi';
import { defineRoute, enveloped, ok, Time } from './route.ts';

const tag = 'Tenant';

export const getTenant = defineRoute({
  id: 'getCurrentTenant',
  method: 'get',
  path: '/platform/tenants/current',
  tag,
  about: 'The owner of the key.',
  scope: 'deployments:read',
  answers: ok(
    enveloped(
      z
        .object({
          id: z.string(),
          name: z.string(),
          slug: z.string(),
          plan: z.string(),
          credit_balance: z.number(),
          inserted_at: Time,
        })
        .openapi('Tenant'),
    ),
  ),
});

const Group = {
  id: z.string(),
  tenant_id: z.string(),
  name: z.string(),
  slug: z.string(),
  external_id: z.string().nullable(),
};

export const listWorkspaces = defineRoute({
  id: 'listWorkspaces',
  method: 'get',
  path: '/workspaces',
  tag,
  about: 'Workspaces, at most 1,000.',
  scope: 'deployments:read',
  answers: ok(enveloped(z.array(z.object({ ...Group, host_label: z.string() }).openapi('Workspace')))),
});

export const listProjects = defineRoute({
  id: 'listProjects',
  method: 'get',
  path: '/projects',
  tag,
  about: 'Projects, at most 1,000.',
  scope: 'deployments:read',
  query: z.object({ workspace_id: z.string().max(200).optional() }),
  answers: ok(enveloped(z.array(z.object({ ...Group, workspace_id: z.string() }).openapi('Project')))),
});
