import { z } from '@hono/zod-openapi';
import { Failure } from './failure.ts';
import { defineRoute, enveloped, ok, Time, WaitQuery } from './route.ts';

const Verification = z
  .object({
    reproducible: z.boolean(),
    stored_sha256: z.string(),
    rebuilt_sha256: z.string(),
    differences: z.array(
      z.object({
        path: z.string(),
        what: z.enum(['content', 'mode', 'type', 'link', 'added', 'missing']),
      }),
    ),
    differences_total: z.number().int(),
  })
  .openapi('Verification');

export const Operation = z
  .object({
    id: z.string(),
    tenant_id: z.string(),
    kind: z.enum(['publish', 'promote', 'rollback', 'verify']),
    deployment_id: z.string(),
    version_id: z.string(),
    state: z.enum(['queued', 'running', 'succeeded', 'failed', 'cancelled']),
    stage: z.string(),
    attempt: z.number().int(),
    promoted: z.boolean().nullable(),
    superseded: z.boolean(),
    failure: Failure.nullable(),
    result: Verification.nullable().openapi({ description: 'Of a finished verify.' }),
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

export const verifyVersion = defineRoute({
  id: 'verifyVersion',
  method: 'post',
  path: '/deployments/{id}/versions/{version_id}/verify',
  tag,
  about:
    'Builds the stored snapshot of a version once more and compares the result with its release, path by path. Nothing is changed. The answer is in `result` of the operation.',
  scope: 'deployments:publish',
  query: WaitQuery,
  answers: {
    200: { about: 'Finished within the wait.', schema: enveloped(Operation) },
    202: { about: 'Accepted.', schema: enveloped(Operation) },
  },
});
