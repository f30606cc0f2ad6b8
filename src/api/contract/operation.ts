import { z } from '@hono/zod-openapi';
import { Failure } from './failure.ts';
import { defineRoute, enveloped, ok, Time, WaitQuery } from './route.ts';

export const Operation = z
  .object({
    id: z.string(),
    tenant_id: z.string(),
    kind: z.enum(['publish', 'promote', 'rollback']),
    deployment_id: z.string(),
    version_id: z.string(),
    state: z.enum(['queued', 'running', 'succeeded', 'failed', 'cancelled']),
    stage: z.string(),
    attempt: z.number().int(),
    promoted: z.boolean().nullable(),
    superseded: z.boolean(),
    failure: Failure.nullable(),
    cancel_requested_at: Time.nullable(),
    created_at: Time,
    started_at: Time.nullable(),
    finished_at: Time.nullable(),
  })
  .openapi('Operation');
export type OperationView = z.infer<typeof Operation>;

const tag = 'Operations';

export const getOperation = defineRoute({
  id: 'getOperation',
  method: 'get',
  path: '/operations/{operation_id}',
  tag,
  about:
    'One accepted intent, and the only truth about its outcome. `wait` holds the answer until it is finished.',
  scope: 'deployments:read',
  query: WaitQuery,
  answers: ok(enveloped(Operation)),
});

export const cancelOperation = defineRoute({
  id: 'cancelOperation',
  method: 'post',
  path: '/operations/{operation_id}/cancel',
  tag,
  about: 'Stops a queued or running operation; production is not touched.',
  scope: 'deployments:publish',
  answers: ok(enveloped(Operation)),
});

export const cancelVersion = defineRoute({
  id: 'cancelVersion',
  method: 'post',
  path: '/deployments/{id}/versions/{version_id}/cancel',
  tag,
  about: 'The same for the publish of a version.',
  scope: 'deployments:publish',
  answers: ok(enveloped(Operation)),
});
