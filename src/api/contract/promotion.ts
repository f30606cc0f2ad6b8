import { z } from '@hono/zod-openapi';
import { Deployment } from './deployment.ts';
import { Environment } from './publish-input.ts';
import { defineRoute, enveloped, opt, WaitQuery } from './route.ts';

export const Switched = enveloped(
  Deployment.extend({
    operation_id: z.string(),
    version_id: z.string(),
    pending: z.boolean().openapi({ description: 'Instances are still being proved; see the operation.' }),
    changes: z.array(
      z.object({
        what: z.enum(['env', 'start_command', 'port', 'health_check_path', 'kind']),
        name: z.string().nullable(),
        from: z.string().nullable(),
        to: z.string().nullable(),
      }),
    ),
  }).openapi('SwitchedDeployment'),
);

const tag = 'Promotion';
const answers = {
  200: { about: 'Switched.', schema: Switched },
  202: {
    about: 'Accepted; the switch follows once the instances are proved, or the operation fails.',
    schema: Switched,
  },
};

export const rollback = defineRoute({
  id: 'rollback',
  method: 'post',
  path: '/deployments/{id}/rollback',
  tag,
  about: 'Back to the version or release named, else to the one that was active before.',
  scope: 'deployments:propose',
  query: WaitQuery,
  body: z.object({ version_id: opt(z.string().max(200)), release_id: opt(z.string().max(200)) }),
  answers,
});

const Promote = z.object({ environment: opt(Environment) });

export const promoteVersion = defineRoute({
  id: 'promoteVersion',
  method: 'post',
  path: '/deployments/{id}/versions/{version_id}/promote',
  tag,
  about: 'Makes an existing version active, without a build.',
  scope: 'deployments:propose',
  query: WaitQuery,
  body: Promote,
  answers,
});

export const promoteRelease = defineRoute({
  id: 'promoteRelease',
  method: 'post',
  path: '/deployments/{id}/releases/{release_id}/promote',
  tag,
  about: 'The same by release.',
  scope: 'deployments:propose',
  query: WaitQuery,
  body: Promote,
  answers,
});
