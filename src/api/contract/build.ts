import { z } from '@hono/zod-openapi';
import { LogLine } from './deployment.ts';
import { AttributionFields, defineRoute, enveloped, listOf, ok, PageQuery, Time } from './route.ts';

export const BuildReport = z
  .object({
    peak_memory_bytes: z.number(),
    cpu_ms: z.number().nullable(),
    disk_bytes: z.number().nullable(),
    hosts: z.array(
      z.object({
        host: z.string(),
        port: z.number(),
        connections: z.number(),
        refused: z.string().nullable(),
        bytes_in: z.number(),
        bytes_out: z.number(),
      }),
    ),
    bytes_in: z.number(),
    bytes_out: z.number(),
  })
  .openapi('BuildReport', {
    description:
      'What the build used and which hosts it asked for; `refused` says why one was not let through.',
  });

export const Build = z
  .object({
    id: z.string(),
    deployment_id: z.string(),
    version_id: z.string(),
    tenant_id: z.string(),
    ...AttributionFields,
    state: z.enum(['queued', 'building', 'succeeded', 'failed', 'cancelled']),
    triggered_by: z.enum(['webhook', 'manual', 'scheduled']),
    commit_sha: z.string().nullable(),
    commit_message: z.string().nullable(),
    image_digest: z.string().nullable(),
    error_message: z.string().nullable(),
    log_url: z.string(),
    log_bytes: z.number(),
    peak_memory_bytes: z.number().nullable(),
    report: BuildReport.nullable(),
    started_at: Time.nullable(),
    finished_at: Time.nullable(),
    duration_ms: z.number().nullable(),
    created_at: Time,
  })
  .openapi('Build');
export type BuildView = z.infer<typeof Build>;

const tag = 'Builds';
const scope = 'deployments:read' as const;

export const listBuilds = defineRoute({
  id: 'listBuilds',
  method: 'get',
  path: '/deployments/{id}/builds',
  tag,
  about: 'Build attempts, newest first.',
  scope,
  query: PageQuery,
  answers: ok(listOf(Build)),
});

export const getBuild = defineRoute({
  id: 'getBuild',
  method: 'get',
  path: '/deployments/{id}/builds/{build_id}',
  tag,
  about: 'One build attempt.',
  scope,
  answers: ok(enveloped(Build)),
});

export const getBuildLogs = defineRoute({
  id: 'getBuildLogs',
  method: 'get',
  path: '/deployments/{id}/builds/{build_id}/logs',
  tag,
  about: 'With `Accept: text/event-stream`: `log_line` frames to the end, then `done`. Otherwise JSON.',
  scope,
  query: z.object({ lines: z.coerce.number().int().min(1).max(10_000).optional() }),
  answers: {
    200: {
      about: 'Lines, oldest first.',
      media: ['text/event-stream'],
      schema: enveloped(
        z.object({
          build_id: z.string(),
          deployment_id: z.string(),
          state: Build.shape.state,
          lines: z.array(LogLine),
          logs: z.string(),
        }),
      ),
    },
  },
});
