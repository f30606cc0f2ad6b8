/** Releases: immutable, content-addressed artifacts. */
import type { Release } from '../domain/release.ts';
import { listReleases } from '../store/release.ts';
import { type VersionOfRelease, versionsOfReleases } from '../store/version.ts';
import { type AnyCall, data, handle, type Mounted, reply } from './call.ts';
import * as contract from './contract/release.ts';
import { findDeployment, findRelease, findVersion, iso, notFound, pageOf } from './find.ts';
import { serviceId } from './service.ts';

/** Where the artifact is, without saying where on this machine. */
export function artifactUri(sha256: string): string {
  return `kiln://releases/sha256:${sha256}`;
}

export function presentRelease(r: Release, version: VersionOfRelease | undefined): contract.ReleaseView {
  const build_id = version?.build_id ?? null;
  return {
    id: r.id,
    deployment_id: r.deployment_id,
    deployment_version_id: r.version_id,
    version_id: r.version_id,
    tenant_id: r.tenant_id,
    workspace_id: r.workspace_id,
    project_id: r.project_id,
    external_workspace_id: r.external_workspace_id,
    external_user_id: r.external_user_id,
    external_project_id: r.external_project_id,
    environment_id: null,
    service_id: serviceId(r.deployment_id),
    source_sandbox_id: version?.source_sandbox_id ?? null,
    build_id,
    kind: r.kind,
    state: r.collected_at === null ? 'ready' : 'archived',
    artifact_uri: artifactUri(r.sha256),
    artifact_sha256: r.sha256,
    artifact_manifest: presentManifest(r),
    storage_backend: 'kiln',
    storage_uri: artifactUri(r.sha256),
    sha256: r.sha256,
    size_bytes: r.size_bytes,
    start_command: r.start_command,
    port: r.port,
    health_check_path: version?.health_check_path ?? null,
    build_log_uri: build_id === null ? null : buildLogUri(r.deployment_id, build_id),
    metadata: {},
    ready_at: iso(r.ready_at),
    archived_at: iso(r.collected_at),
    created_at: iso(r.created_at),
    updated_at: iso(r.collected_at ?? r.ready_at),
  };
}

export function presentManifest(r: Release): Record<string, unknown> {
  const { files, total_bytes, entrypoint, base, workdir, layers } = r.manifest;
  return {
    ...(files === undefined ? {} : { files }),
    ...(layers === undefined ? {} : { layers }),
    total_bytes,
    entrypoint,
    ...(base === undefined ? {} : { base }),
    ...(workdir === undefined ? {} : { workdir }),
  };
}

export function buildLogUri(deployment_id: string, build_id: string): string {
  return `/api/v1/deployments/${deployment_id}/builds/${build_id}/logs`;
}

async function presentAll(call: AnyCall, rows: Release[]): Promise<contract.ReleaseView[]> {
  const ids = rows.map((row) => row.version_id);
  const versions = await versionsOfReleases(call.deps.database.db, ids);
  return rows.map((row) => presentRelease(row, versions.get(row.version_id)));
}

const one = async (call: AnyCall, row: Release) => data((await presentAll(call, [row]))[0]);

export const releaseHandlers: Mounted[] = [
  handle(contract.listReleases, async (call) => {
    const deployment = await findDeployment(call, call.params.id);
    const page = await listReleases(call.deps.database.db, deployment.id, pageOf(call.query));
    return reply({ data: await presentAll(call, page.data), next_cursor: page.next_cursor });
  }),
  handle(contract.getDeploymentRelease, async (call) => {
    const deployment = await findDeployment(call, call.params.id);
    return one(call, await findRelease(call, deployment.id, call.params.release_id));
  }),
  handle(contract.getVersionRelease, async (call) => {
    const deployment = await findDeployment(call, call.params.id);
    const version = await findVersion(call, deployment.id, call.params.version_id);
    if (version.release_id === null) throw notFound('release of version', version.id);
    return one(call, await findRelease(call, deployment.id, version.release_id));
  }),
  handle(contract.getRelease, async (call) =>
    one(call, await findRelease(call, null, call.params.release_id)),
  ),
];
