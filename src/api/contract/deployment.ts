import { z } from '@hono/zod-openapi';
import { Failure } from './failure.ts';
import { Command, HealthPath, Port } from './publish-input.ts';
import {
  AttributionFields,
  AttributionInput,
  AttributionQuery,
  Deleted,
  defineRoute,
  enveloped,
  listOf,
  Metadata,
  MetadataInput,
  NameInput,
  OwnerInput,
  ok,
  opt,
  PageQuery,
  Time,
} from './route.ts';

export const DEPLOYMENT_STATES = ['pending', 'building', 'running', 'stopped', 'failed'] as const;

const Settings = z.object({
  install_command: z.string().nullable(),
  build_command: z.string().nullable(),
  run_command: z.string().nullable(),
  output_path: z.string().nullable(),
  port: z.number().nullable(),
  health_check_path: z.string().nullable(),
  grace_ms: z.number().nullable(),
  startup_timeout_ms: z.number().nullable(),
  memory_bytes: z.number().nullable(),
});

export const Deployment = z
  .object({
    id: z.string(),
    tenant_id: z.string(),
    owner_id: z.string().nullable(),
    workspace_id: z.string(),
    project_id: z.string(),
    name: z.string(),
    slug: z.string(),
    state: z.enum(DEPLOYMENT_STATES),
    error_message: z.string().nullable(),
    /** Why the newest version failed, when the deployment has never been live. */
    failure: Failure.nullable(),
    repo_url: z.string().nullable(),
    repo_provider: z.string().nullable(),
    branch: z.string().nullable(),
    build_command: z.string().nullable(),
    run_command: z.string().nullable(),
    runtime_image: z.string().nullable(),
    current_build_id: z.string().nullable(),
    active_version_id: z.string().nullable(),
    active_release_id: z.string().nullable(),
    running_artifact_sha256: z.string().nullable(),
    source_type: z.enum(['repo', 'sandbox', 'upload']).nullable(),
    auto_deploy: z.boolean(),
    custom_domain_id: z.string().nullable(),
    linked_database_id: z.string().nullable(),
    deployment_product: z.literal('miosa_deploy'),
    docker_deploy_host_id: z.string().nullable(),
    docker_deploy_app: z.string().nullable(),
    settings: Settings,
    desired_replicas: z.number().int(),
    size: z.string(),
    metadata: Metadata,
    ...AttributionFields,
    public_url: z.string(),
    auto_subdomain: z.string(),
    url: z.string(),
    created_at: Time,
    updated_at: Time,
  })
  .openapi('Deployment');
export type DeploymentView = z.infer<typeof Deployment>;

const tag = 'Deployments';
const one = ok(enveloped(Deployment));

/** What a publish falls back to when it does not say; `null` clears. */
const SettingsInput = {
  install_command: opt(Command),
  build_command: opt(Command),
  run_command: opt(Command),
  output_path: opt(z.string().max(4096)),
  port: opt(Port),
  health_check_path: opt(HealthPath),
  grace_ms: opt(z.number().int().min(0).max(3_600_000)),
  grace_sec: opt(z.number().min(0).max(3600)),
  startup_timeout_ms: opt(z.number().int().min(1000).max(3_600_000)),
};

const Slug = z.string().regex(/^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$/, {
  message: 'must be 1 to 40 lower-case letters, digits and inner hyphens',
});

const Create = z.object({
  name: NameInput,
  slug: opt(Slug),
  source_type: opt(z.enum(['repo', 'sandbox', 'upload'])),
  repo_url: opt(z.string().max(2000)),
  branch: opt(z.string().max(255)),
  auto_deploy: opt(z.boolean()),
  ...SettingsInput,
  env: opt(z.record(z.string(), z.string())),
  metadata: opt(MetadataInput),
  deployment_type: opt(z.string()),
  deployment_product: opt(z.string()),
  database: opt(z.unknown()),
  ...OwnerInput,
});
export type CreateDeployment = z.infer<typeof Create>;

const creating = <S extends string>(id: string, path: S) =>
  defineRoute({
    id,
    method: 'post',
    path,
    tag,
    about:
      'Makes a deployment: a name, a slug and a URL that never changes. Nothing is live until a publish.',
    scope: 'deployments:write',
    body: Create,
    answers: { 201: { about: 'The deployment.', schema: enveloped(Deployment) } },
  });
export const createDeployment = creating('createDeployment', '/deployments');
export const createProjectDeployment = creating(
  'createProjectDeployment',
  '/projects/{project_id}/deployments',
);

export const listDeployments = defineRoute({
  id: 'listDeployments',
  method: 'get',
  path: '/deployments',
  tag,
  about: 'Deployments, newest first.',
  scope: 'deployments:read',
  query: z.object({
    ...PageQuery.shape,
    ...AttributionQuery.shape,
    state: z.enum(DEPLOYMENT_STATES).optional(),
    project_id: z.string().max(200).optional(),
    workspace_id: z.string().max(200).optional(),
  }),
  answers: ok(listOf(Deployment)),
});

export const getDeployment = defineRoute({
  id: 'getDeployment',
  method: 'get',
  path: '/deployments/{id}',
  tag,
  about: 'One deployment.',
  scope: 'deployments:read',
  answers: one,
});

export const getDeploymentByName = defineRoute({
  id: 'getDeploymentByName',
  method: 'get',
  path: '/deployments/by-name/{name}',
  tag,
  about: 'By slug, else by exact name; the newest when several have it.',
  scope: 'deployments:read',
  answers: one,
});

const Change = z.object({
  name: opt(NameInput),
  slug: opt(Slug),
  branch: opt(z.string().max(255)),
  repo_url: opt(z.string().max(2000)),
  auto_deploy: opt(z.boolean()),
  ...SettingsInput,
  metadata: opt(MetadataInput),
  ...AttributionInput,
});
export type ChangeDeployment = z.infer<typeof Change>;

export const updateDeployment = defineRoute({
  id: 'updateDeployment',
  method: 'patch',
  path: '/deployments/{id}',
  tag,
  about:
    'Changes what is named. Settings take effect with the next publish; a new slug retires the old host.',
  scope: 'deployments:write',
  body: Change,
  answers: one,
});

export const deleteDeployment = defineRoute({
  id: 'deleteDeployment',
  method: 'delete',
  path: '/deployments/{id}',
  tag,
  about: 'Takes it off the air and removes it with its history.',
  scope: 'deployments:write',
  answers: ok(Deleted),
});

export const scaleDeployment = defineRoute({
  id: 'scaleDeployment',
  method: 'post',
  path: '/deployments/{id}/scale',
  tag,
  about:
    'Number of instances of a dynamic deployment. 0 stops it (the edge answers 503) until it is scaled up or something is promoted.',
  scope: 'deployments:write',
  body: z.object({
    instances: opt(z.number().int().min(0).max(1000)),
    replicas: opt(z.number().int().min(0).max(1000)),
  }),
  answers: one,
});

export const resizeDeployment = defineRoute({
  id: 'resizeDeployment',
  method: 'post',
  path: '/deployments/{id}/resize',
  tag,
  about: 'Memory of each instance, by size name; takes effect with the next publish.',
  scope: 'deployments:write',
  body: z.object({ size: z.string() }),
  answers: one,
});

export const getDeploymentMetrics = defineRoute({
  id: 'getDeploymentMetrics',
  method: 'get',
  path: '/deployments/{id}/metrics',
  tag,
  about: 'How its instances are now.',
  scope: 'deployments:read',
  query: z.object({ window: z.enum(['1h', '24h', '7d']).optional() }),
  answers: ok(
    enveloped(
      z
        .object({
          deployment_id: z.string(),
          window: z.string(),
          current: z.object({
            state: z.enum(DEPLOYMENT_STATES),
            runtime_instances: z.object({
              active: z.number(),
              total: z.number(),
              healthy: z.number(),
              unhealthy: z.number(),
              error: z.number(),
              restarts: z.number(),
            }),
            cpu_limit_millicores: z.number().nullable(),
            memory_limit_mb: z.number().nullable(),
            usage: z.object({ runtime_sec: z.number(), cost_cents: z.number() }),
            last_health_check_at: Time.nullable(),
            last_heartbeat_at: Time.nullable(),
          }),
        })
        .openapi('DeploymentMetrics'),
    ),
  ),
});

export const LogLine = z
  .object({
    ts: Time,
    stream: z.string(),
    line: z.string(),
    source: z.enum(['build', 'instance']),
    source_id: z.string(),
  })
  .openapi('LogLine');

export const getDeploymentLogs = defineRoute({
  id: 'getDeploymentLogs',
  method: 'get',
  path: '/deployments/{id}/logs',
  tag,
  about:
    'With `Accept: text/event-stream`: the log of the publish that is under way, ending with `event: done`; else the live instances, followed until the caller hangs up (or `follow=false`). Otherwise JSON: the newest build and the live instances.',
  scope: 'deployments:read',
  query: z.object({
    lines: z.coerce.number().int().min(1).max(10_000).optional(),
    follow: z.enum(['true', 'false']).optional(),
  }),
  answers: {
    200: {
      about: 'Lines, oldest first.',
      media: ['text/event-stream'],
      schema: enveloped(z.object({ deployment_id: z.string(), lines: z.array(LogLine), logs: z.string() })),
    },
  },
});
