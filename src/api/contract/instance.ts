import { z } from '@hono/zod-openapi';
import { Failure } from './failure.ts';
import { AttributionFields, defineRoute, enveloped, listOf, Metadata, ok, PageQuery, Time } from './route.ts';

export const Instance = z
  .object({
    id: z.string(),
    tenant_id: z.string(),
    deployment_id: z.string(),
    version_id: z.string(),
    release_id: z.string(),
    environment_id: z.string().nullable(),
    service_id: z.string().nullable(),
    ...AttributionFields,
    host_id: z.string().nullable(),
    node_id: z.string().nullable(),
    vm_id: z.string().nullable(),
    role: z.enum(['gating', 'live', 'warm', 'retired']),
    state: z.enum(['provisioning', 'starting', 'healthy', 'unhealthy', 'error', 'stopped', 'destroyed']),
    desired_state: z.enum(['running', 'stopped']),
    replica: z.number().int(),
    ip_address: z.string().nullable(),
    port: z.number().nullable(),
    health_check_path: z.string().nullable(),
    last_health_check_at: Time.nullable(),
    last_heartbeat_at: Time.nullable(),
    started_at: Time.nullable(),
    stopped_at: Time.nullable(),
    error_message: z.string().nullable(),
    failure: Failure.nullable(),
    restart_count: z.number().int(),
    cpu_limit_millicores: z.number().nullable(),
    memory_limit_mb: z.number().nullable(),
    runtime_log_path: z.string(),
    metadata: Metadata,
    created_at: Time,
    updated_at: Time,
  })
  .openapi('RuntimeInstance');
export type InstanceView = z.infer<typeof Instance>;

const tag = 'Runtime instances';
const scope = 'deployments:read' as const;

export const listInstances = defineRoute({
  id: 'listRuntimeInstances',
  method: 'get',
  path: '/deployments/{id}/runtime-instances',
  tag,
  about: 'Those alive, then the latest stopped ones.',
  scope,
  query: PageQuery,
  answers: ok(listOf(Instance)),
});

export const getInstance = defineRoute({
  id: 'getRuntimeInstance',
  method: 'get',
  path: '/deployments/{id}/runtime-instances/{instance_id}',
  tag,
  about: 'One instance.',
  scope,
  answers: ok(enveloped(Instance)),
});

export const getInstanceLogs = defineRoute({
  id: 'getRuntimeInstanceLogs',
  method: 'get',
  path: '/deployments/{id}/runtime-instances/{instance_id}/logs',
  tag,
  about: 'The last lines as one text; with `Accept: text/event-stream` followed to the end.',
  scope,
  query: z.object({ lines: z.coerce.number().int().min(1).max(10_000).optional() }),
  answers: {
    200: {
      about: 'Log text.',
      media: ['text/event-stream'],
      schema: enveloped(
        z.object({
          runtime_instance_id: z.string(),
          deployment_id: z.string(),
          log_path: z.string(),
          logs: z.string(),
        }),
      ),
    },
  },
});
