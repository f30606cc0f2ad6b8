import { z } from '@hono/zod-openapi';
import { Deployment } from './deployment.ts';
import { Failure } from './failure.ts';
import { Plan } from './plan.ts';
import { BridgeBody, PublishBody } from './publish-input.ts';
import { Release, Service } from './release.ts';
import {
  AttributionFields,
  AttributionQuery,
  defineRoute,
  enveloped,
  listOf,
  Metadata,
  ok,
  opt,
  PageQuery,
  Time,
  WaitQuery,
} from './route.ts';

export const VERSION_STATES = ['created', 'building', 'ready', 'failed', 'archived'] as const;

export const Version = z
  .object({
    id: z.string(),
    deployment_id: z.string(),
    tenant_id: z.string(),
    workspace_id: z.string(),
    project_id: z.string(),
    ...AttributionFields,
    version_number: z.number().int(),
    kind: z.enum(['static', 'dynamic', 'sandbox_backed']),
    state: z.enum(VERSION_STATES),
    created_by: z.string().nullable(),
    source_sandbox_id: z.string().nullable(),
    source_sha256: z.string(),
    source_size_bytes: z.number(),
    source_files: z.number(),
    build_id: z.string(),
    release_id: z.string().nullable(),
    artifact_uri: z.string().nullable(),
    artifact_sha256: z.string().nullable(),
    /** Absent, never null, until there is an artifact. */
    artifact_manifest: Metadata.optional(),
    runtime_image: z.string().nullable(),
    runtime_command: z.string().nullable(),
    runtime_port: z.number().nullable(),
    health_check_path: z.string().nullable(),
    build_log_uri: z.string(),
    environment: z.string(),
    plan: Plan.nullable(),
    stage: z.string().nullable(),
    stage_times: z
      .record(z.string(), z.number())
      .openapi({ description: 'Milliseconds per finished stage.' }),
    failure: Failure.nullable(),
    error_message: z.string().nullable(),
    superseded: z.boolean(),
    reused_release: z.boolean(),
    retry_of: z.string().nullable(),
    metadata: Metadata,
    health_passed_at: Time.nullable(),
    promoted_at: Time.nullable(),
    archived_at: Time.nullable(),
    created_at: Time,
    updated_at: Time,
  })
  .openapi('Version');
export type VersionView = z.infer<typeof Version>;

/** Answer of every publish: the documented envelope and the bridge's in one. */
export const Published = z
  .object({
    deployment_product: z.literal('miosa_deploy'),
    data: z.object({
      deployment_id: z.string(),
      version_id: z.string(),
      release_id: z.string().nullable(),
      operation_id: z.string(),
      state: Deployment.shape.state,
      url: z.string(),
      public_url: z.string(),
      promoted: z.boolean(),
      promotion_pending: z.boolean(),
      deployment: Deployment,
      version: Version,
      release: Release.nullable(),
      services: z.array(Service),
      secrets_left_out: z.array(z.string()),
    }),
  })
  .openapi('Published');
export type PublishedView = z.infer<typeof Published>;

const tag = 'Versions';
const published = {
  200: { about: 'The outcome is known (asked for with `wait`).', schema: Published },
  202: { about: 'Accepted; the version is in its current state.', schema: Published },
};

export const publish = defineRoute({
  id: 'publish',
  method: 'post',
  path: '/deployments/{id}/publish',
  tag,
  about: 'Freezes the sandbox, then builds, proves and promotes it.',
  scope: 'deployments:publish',
  query: WaitQuery,
  body: PublishBody,
  answers: published,
});

const bridge = (verb: 'deploy' | 'publish') =>
  defineRoute({
    id: `${verb}FromSandbox`,
    method: 'post',
    path: `/sandboxes/{id}/${verb}`,
    tag,
    about:
      'The same from the sandbox: into `deployment_id`, or the deployment called `name` in the workspace of the sandbox, which is made when there is none. Without either the name is that of the sandbox.',
    scope: 'deployments:publish',
    query: WaitQuery,
    body: BridgeBody,
    answers: published,
  });
export const deployFromSandbox = bridge('deploy');
export const publishFromSandbox = bridge('publish');

const Again = z.object({ promote: opt(z.boolean()), reuse: opt(z.boolean()) });

export const retryVersion = defineRoute({
  id: 'retryVersion',
  method: 'post',
  path: '/deployments/{id}/versions/{version_id}/retry',
  tag,
  about: 'A new version from the stored snapshot of this one.',
  scope: 'deployments:publish',
  query: WaitQuery,
  body: Again,
  answers: published,
});

export const redeploy = defineRoute({
  id: 'redeploy',
  method: 'post',
  path: '/deployments/{id}/redeploy',
  tag,
  about:
    'Publishes the snapshot of the active version again. The answer can be read as a build and as a deployment.',
  scope: 'deployments:publish',
  body: z.object({ reuse: opt(z.boolean()) }),
  answers: {
    202: {
      about: 'Accepted.',
      schema: enveloped(
        z.object({
          id: z.string(),
          build_id: z.string(),
          deployment_id: z.string(),
          version_id: z.string(),
          operation_id: z.string(),
          tenant_id: z.string(),
          name: z.string(),
          slug: z.string(),
          state: z.literal('building'),
          triggered_by: z.literal('manual'),
          log_url: z.string(),
          public_url: z.string(),
          metadata: Metadata,
          created_at: Time,
        }),
      ),
    },
  },
});

export const listVersions = defineRoute({
  id: 'listVersions',
  method: 'get',
  path: '/deployments/{id}/versions',
  tag,
  about: 'History, newest first.',
  scope: 'deployments:read',
  query: z.object({
    ...PageQuery.shape,
    ...AttributionQuery.shape,
    state: z.enum(VERSION_STATES).optional(),
    workspace_id: z.string().max(200).optional(),
  }),
  answers: ok(listOf(Version)),
});

export const getVersionById = defineRoute({
  id: 'getVersionById',
  method: 'get',
  path: '/versions/{version_id}',
  tag,
  about: 'The same by its id alone.',
  scope: 'deployments:read',
  answers: ok(enveloped(Version)),
});

export const getVersion = defineRoute({
  id: 'getVersion',
  method: 'get',
  path: '/deployments/{id}/versions/{version_id}',
  tag,
  about: 'One version, with its plan, stage times and failure.',
  scope: 'deployments:read',
  answers: ok(enveloped(Version)),
});
