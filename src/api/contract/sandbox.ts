import { z } from '@hono/zod-openapi';
import {
  AttributionFields,
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
import { SIZE_NAMES } from './size.ts';

export const SANDBOX_STATES = ['provisioning', 'running', 'paused', 'destroyed', 'error'] as const;

/** Bare on the wire, so it must never get a field named `data` (clients unwrap on that name). */
export const Sandbox = z
  .object({
    id: z.string(),
    name: z.string(),
    slug: z.string(),
    state: z.enum(SANDBOX_STATES),
    status: z.enum(SANDBOX_STATES),
    ready: z.boolean(),
    template_id: z.string(),
    image_id: z.string().nullable(),
    size: z.string(),
    resource_contract: z.object({
      id: z.string(),
      version: z.string(),
      product: z.string(),
      size: z.string(),
      vcpus: z.number(),
      memory_mb: z.number(),
      disk_size_mb: z.number(),
    }),
    cpu_count: z.number(),
    memory_mb: z.number(),
    disk_mb: z.number(),
    disk_size_mb: z.number(),
    tenant_id: z.string(),
    owner_id: z.string().nullable(),
    workspace_id: z.string(),
    project_id: z.string(),
    ...AttributionFields,
    tags: z.array(z.string()),
    timeout_sec: z.number().nullable(),
    timeout_remaining_ms: z.number().nullable(),
    idle_timeout_sec: z.number().nullable(),
    always_on: z.boolean(),
    persistent: z.boolean(),
    preview_url: z.string().nullable(),
    metadata: Metadata,
    created_at: Time,
    updated_at: Time,
    started_at: Time.nullable(),
    ready_at: Time.nullable(),
    destroyed_at: Time.nullable(),
  })
  .openapi('Sandbox');
export type SandboxView = z.infer<typeof Sandbox>;

const Seconds = z.number().int().min(1).max(31_536_000);
const Tags = z.array(z.string().min(1).max(100)).max(50);
const Slug = z.string().regex(/^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$/, {
  message: 'must be 1 to 40 lower-case letters, digits and inner hyphens',
});
/** Inputs of the protocol that ask for what one machine does not have; anything but empty is refused, never ignored. */
const anything = () => opt(z.unknown());

const Create = z.object({
  name: opt(NameInput),
  slug: opt(Slug),
  template_id: opt(z.string().max(200)),
  size: opt(z.enum(SIZE_NAMES)),
  cpu_count: opt(z.number().int()),
  memory_mb: opt(z.number().int()),
  disk_mb: opt(z.number().int()),
  disk_size_mb: opt(z.number().int()),
  timeout_sec: opt(Seconds),
  idle_timeout_sec: opt(Seconds),
  persistent: opt(z.boolean()),
  always_on: opt(z.boolean()),
  env: opt(z.record(z.string(), z.string())),
  tags: opt(Tags),
  metadata: opt(MetadataInput),
  ...OwnerInput,
  database: anything(),
  github_repo_url: anything(),
  source: anything(),
  /** Its files to start with. Anything but text is refused by name. */
  snapshot_id: anything(),
  services: anything(),
  agent_runtime_profile_id: anything(),
});
export type CreateSandbox = z.infer<typeof Create>;

const tag = 'Sandboxes';
const one = ok(Sandbox);

export const createSandbox = defineRoute({
  id: 'createSandbox',
  method: 'post',
  path: '/sandboxes',
  tag,
  about: 'Makes an empty workspace.',
  scope: 'sandboxes:write',
  body: Create,
  answers: { 201: { about: 'The sandbox.', schema: Sandbox } },
});

export const listSandboxes = defineRoute({
  id: 'listSandboxes',
  method: 'get',
  path: '/sandboxes',
  tag,
  about: 'Sandboxes, newest first; destroyed ones only with `state=destroyed`.',
  scope: 'sandboxes:read',
  query: z.object({
    ...PageQuery.shape,
    ...AttributionQuery.shape,
    state: z.enum(SANDBOX_STATES).optional(),
    tags: z.string().max(2000).optional().openapi({ description: 'Comma-separated; all must match.' }),
    workspace_id: z.string().max(200).optional(),
    project_id: z.string().max(200).optional(),
  }),
  answers: ok(listOf(Sandbox)),
});

export const getSandbox = defineRoute({
  id: 'getSandbox',
  method: 'get',
  path: '/sandboxes/{id}',
  tag,
  about: 'One sandbox.',
  scope: 'sandboxes:read',
  answers: one,
});

export const getSandboxByName = defineRoute({
  id: 'getSandboxByName',
  method: 'get',
  path: '/sandboxes/by-name/{name}',
  tag,
  about: 'The living sandbox of this name.',
  scope: 'sandboxes:read',
  answers: one,
});

export const updateSandbox = defineRoute({
  id: 'updateSandbox',
  method: 'patch',
  path: '/sandboxes/{id}',
  tag,
  about: 'Changes what is named.',
  scope: 'sandboxes:write',
  body: z.object({
    name: opt(NameInput),
    slug: opt(Slug),
    tags: opt(Tags),
    metadata: opt(MetadataInput),
    always_on: opt(z.boolean()),
    timeout_sec: opt(Seconds),
    idle_timeout_sec: opt(Seconds),
  }),
  answers: one,
});

export const setSandboxTags = defineRoute({
  id: 'setSandboxTags',
  method: 'patch',
  path: '/sandboxes/{id}/tags',
  tag,
  about: 'Replaces the tags.',
  scope: 'sandboxes:write',
  body: z.object({ tags: Tags }),
  answers: one,
});

export const deleteSandbox = defineRoute({
  id: 'deleteSandbox',
  method: 'delete',
  path: '/sandboxes/{id}',
  tag,
  about: 'Destroys the sandbox and its workspace. Deployments made from it stay.',
  scope: 'sandboxes:write',
  answers: ok(Deleted),
});

const moveTo = (verb: 'pause' | 'resume' | 'stop', about: string) =>
  defineRoute({
    id: `${verb}Sandbox`,
    method: 'post',
    path: `/sandboxes/{id}/${verb}`,
    tag,
    about,
    scope: 'sandboxes:write',
    answers: one,
  });
export const pauseSandbox = moveTo('pause', 'Pauses. A persistent sandbox resumes on its next use.');
export const resumeSandbox = moveTo('resume', 'Resumes a paused sandbox.');
export const stopSandbox = moveTo('stop', 'The same as pause: the workspace is kept.');

export const extendSandbox = defineRoute({
  id: 'extendSandbox',
  method: 'post',
  path: '/sandboxes/{id}/extend',
  tag,
  about: 'Sets `timeout_sec`.',
  scope: 'sandboxes:write',
  body: z.object({ timeout_sec: opt(Seconds) }),
  answers: one,
});

const Readiness = z
  .object({ ready: z.boolean(), status: z.string(), state: z.enum(SANDBOX_STATES) })
  .openapi('Readiness');

export const getReadiness = defineRoute({
  id: 'getSandboxReadiness',
  method: 'get',
  path: '/sandboxes/{id}/readiness',
  tag,
  about: 'Can it be used?',
  scope: 'sandboxes:read',
  answers: ok(Readiness),
});

export const streamReadiness = defineRoute({
  id: 'streamSandboxReadiness',
  method: 'get',
  path: '/sandboxes/{id}/readiness/stream',
  tag,
  about: '`event: ready` as soon as it is, or `event: timeout`.',
  scope: 'sandboxes:read',
  answers: { 200: { about: 'Server-sent events.', media: ['text/event-stream'] } },
});

export const getSandboxUsage = defineRoute({
  id: 'getSandboxUsage',
  method: 'get',
  path: '/sandboxes/{id}/usage',
  tag,
  about: 'What it used. Counters this engine does not measure are null and say so in `measurement_status`.',
  scope: 'sandboxes:read',
  answers: ok(
    enveloped(
      z
        .object({
          sandbox_id: z.string(),
          state: z.enum(SANDBOX_STATES),
          runtime_sec: z.number(),
          provisioned_vcpu_ms: z.number(),
          provisioned_memory_mb_ms: z.number(),
          creation_count: z.number(),
          active_cpu_ms: z.number().nullable(),
          network_ingress_bytes: z.number().nullable(),
          network_egress_bytes: z.number().nullable(),
          measurement_status: z.object({
            active_cpu: z.string(),
            network: z.string(),
            provisioned_resources: z.string(),
          }),
          estimated_cost_cents: z.number(),
          timeout_sec: z.number().nullable(),
          timeout_remaining_ms: z.number().nullable(),
        })
        .openapi('SandboxUsage'),
    ),
  ),
});

const SandboxVar = z
  .object({ key: z.string(), name: z.string(), preview: z.string() })
  .openapi('SandboxEnvVar');

export const getSandboxEnv = defineRoute({
  id: 'getSandboxEnv',
  method: 'get',
  path: '/sandboxes/{id}/env',
  tag,
  about: 'Variables that every exec gets; values are never returned.',
  scope: 'sandboxes:read',
  answers: ok(enveloped(z.array(SandboxVar))),
});

export const putSandboxEnv = defineRoute({
  id: 'putSandboxEnv',
  method: 'put',
  path: '/sandboxes/{id}/env',
  tag,
  about: 'Sets the variables named, keeps the others.',
  scope: 'sandboxes:write',
  body: z.object({
    vars: opt(z.array(z.object({ key: opt(z.string()), name: opt(z.string()), value: z.string() })).max(200)),
    env: opt(z.record(z.string(), z.string())),
  }),
  answers: ok(enveloped(z.array(SandboxVar))),
});

export const deleteSandboxEnv = defineRoute({
  id: 'deleteSandboxEnv',
  method: 'delete',
  path: '/sandboxes/{id}/env/{key}',
  tag,
  about: 'Removes one variable.',
  scope: 'sandboxes:write',
  answers: ok(z.object({ key: z.string(), deleted: z.literal(true) })),
});

const Template = z.object({ id: z.string(), name: z.string(), description: z.string() });

export const listSandboxTemplates = defineRoute({
  id: 'listSandboxTemplates',
  method: 'get',
  path: '/sandbox-templates',
  tag,
  about: 'The same in the other spelling.',
  scope: 'sandboxes:read',
  answers: ok(z.object({ data: z.array(Template), default_template_id: z.string() })),
});

export const listTemplates = defineRoute({
  id: 'listTemplates',
  method: 'get',
  path: '/templates',
  tag,
  about: 'The one template there is, and the sizes.',
  scope: 'sandboxes:read',
  answers: ok(
    z.object({
      templates: z.array(Template),
      shape_contracts: z.array(Sandbox.shape.resource_contract),
      default_template_id: z.string(),
    }),
  ),
});
