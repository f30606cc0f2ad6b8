import { z } from '@hono/zod-openapi';
import { AttributionFields, defineRoute, enveloped, listOf, Metadata, ok, PageQuery, Time } from './route.ts';

/** Both spellings of address and digest: the documented (`storage_uri`, `sha256`) and the clients' (`artifact_*`). */
export const Release = z
  .object({
    id: z.string(),
    deployment_id: z.string(),
    deployment_version_id: z.string(),
    version_id: z.string(),
    tenant_id: z.string(),
    workspace_id: z.string(),
    project_id: z.string(),
    ...AttributionFields,
    environment_id: z.string().nullable(),
    service_id: z.string().nullable(),
    source_sandbox_id: z.string().nullable(),
    build_id: z.string().nullable(),
    kind: z.enum(['static', 'rootfs', 'oci']),
    state: z.enum(['ready', 'archived']),
    artifact_uri: z.string(),
    artifact_sha256: z.string(),
    artifact_manifest: Metadata,
    storage_backend: z.string(),
    storage_uri: z.string(),
    sha256: z.string(),
    size_bytes: z.number(),
    start_command: z.string().nullable(),
    port: z.number().nullable(),
    health_check_path: z.string().nullable(),
    build_log_uri: z.string().nullable(),
    metadata: Metadata,
    ready_at: Time,
    archived_at: Time.nullable(),
    created_at: Time,
    updated_at: Time,
  })
  .openapi('Release');
export type ReleaseView = z.infer<typeof Release>;

export const Service = z
  .object({
    id: z.string(),
    deployment_id: z.string(),
    tenant_id: z.string(),
    environment_id: z.string().nullable(),
    name: z.string(),
    type: z.enum(['static_web', 'web']),
    state: z.string(),
    desired_replicas: z.number().int(),
    metadata: Metadata,
  })
  .openapi('Service');
export type ServiceView = z.infer<typeof Service>;

const tag = 'Releases';
const scope = 'deployments:read' as const;

export const listReleases = defineRoute({
  id: 'listReleases',
  method: 'get',
  path: '/deployments/{id}/releases',
  tag,
  about: 'Artifacts of a deployment, newest first.',
  scope,
  query: PageQuery,
  answers: ok(listOf(Release)),
});

export const getDeploymentRelease = defineRoute({
  id: 'getDeploymentRelease',
  method: 'get',
  path: '/deployments/{id}/releases/{release_id}',
  tag,
  about: 'One artifact.',
  scope,
  answers: ok(enveloped(Release)),
});

export const getVersionRelease = defineRoute({
  id: 'getVersionRelease',
  method: 'get',
  path: '/deployments/{id}/versions/{version_id}/release',
  tag,
  about: 'The artifact of a version; 404 while there is none.',
  scope,
  answers: ok(enveloped(Release)),
});

export const getRelease = defineRoute({
  id: 'getRelease',
  method: 'get',
  path: '/releases/{release_id}',
  tag,
  about: 'One artifact.',
  scope,
  answers: ok(enveloped(Release)),
});
