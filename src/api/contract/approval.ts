import { z } from '@hono/zod-openapi';
import { Switched } from './promotion.ts';
import { defineRoute, enveloped, listOf, ok, PageQuery, Time } from './route.ts';

const STATES = ['pending', 'approved', 'denied', 'expired'] as const;

export const Approval = z
  .object({
    id: z.string(),
    tenant_id: z.string(),
    project_id: z.string(),
    deployment_id: z.string(),
    version_id: z.string(),
    kind: z.enum(['promote', 'rollback']),
    state: z.enum(STATES),
    requested_by: z.string().openapi({ description: 'Id of the API key.' }),
    decided_by: z.string().nullable(),
    operation_id: z.string().nullable(),
    expires_at: Time,
    decided_at: Time.nullable(),
    created_at: Time,
  })
  .openapi('Approval');
export type ApprovalView = z.infer<typeof Approval>;

const tag = 'Approvals';

export const listApprovals = defineRoute({
  id: 'listApprovals',
  method: 'get',
  path: '/approvals',
  tag,
  about: 'Promotions that keys with the scope `deployments:propose` asked for, newest first.',
  scope: 'deployments:read',
  query: PageQuery.extend({ state: z.enum(STATES).optional() }),
  answers: ok(listOf(Approval)),
});

export const getApproval = defineRoute({
  id: 'getApproval',
  method: 'get',
  path: '/approvals/{approval_id}',
  tag,
  about: 'One of them.',
  scope: 'deployments:read',
  answers: ok(enveloped(Approval)),
});

export const approve = defineRoute({
  id: 'approve',
  method: 'post',
  path: '/approvals/{approval_id}/approve',
  tag,
  about: 'Makes the switch that was asked for.',
  scope: 'deployments:promote',
  body: z.object({}),
  answers: {
    200: { about: 'Switched.', schema: Switched },
    202: { about: 'Accepted; the switch follows once the instances are proved.', schema: Switched },
  },
});

export const deny = defineRoute({
  id: 'deny',
  method: 'post',
  path: '/approvals/{approval_id}/deny',
  tag,
  about: 'Refuses it; nothing changes.',
  scope: 'deployments:promote',
  body: z.object({}),
  answers: ok(enveloped(Approval)),
});
