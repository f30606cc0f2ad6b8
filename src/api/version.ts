/** Versions: the immutable history of a deployment. */
import type { Release } from '../domain/release.ts';
import type { Version } from '../domain/version.ts';
import { releasesById } from '../store/release.ts';
import { listVersions } from '../store/version.ts';
import { type AnyCall, data, handle, type Mounted, reply } from './call.ts';
import * as contract from './contract/version.ts';
import { findDeployment, findVersion, iso, pageOf } from './find.ts';
import { artifactUri, buildLogUri, presentManifest } from './release.ts';

export function presentVersion(v: Version, release: Release | undefined): contract.VersionView {
  const is_dynamic = v.kind === 'dynamic';
  return {
    id: v.id,
    deployment_id: v.deployment_id,
    tenant_id: v.tenant_id,
    workspace_id: v.workspace_id,
    project_id: v.project_id,
    external_workspace_id: v.external_workspace_id,
    external_user_id: v.external_user_id,
    external_project_id: v.external_project_id,
    version_number: v.version_number,
    kind: v.kind ?? expectedKind(v),
    state: v.state,
    created_by: null,
    source_sandbox_id: v.source_sandbox_id,
    source_sha256: v.source_sha256,
    source_size_bytes: v.source_size_bytes,
    source_files: v.source_files,
    build_id: v.build_id,
    release_id: v.release_id,
    artifact_uri: release ? artifactUri(release.sha256) : null,
    artifact_sha256: release?.sha256 ?? null,
    ...(release ? { artifact_manifest: presentManifest(release) } : {}),
    runtime_image: null,
    runtime_command: is_dynamic ? (release?.start_command ?? v.plan?.start ?? null) : null,
    runtime_port: is_dynamic ? (release?.port ?? v.plan?.port ?? null) : null,
    health_check_path: is_dynamic ? (v.run_settings?.health_check_path ?? null) : null,
    build_log_uri: buildLogUri(v.deployment_id, v.build_id),
    environment: v.request.environment,
    // Stored as JSON, so `sources` has no undefined values although its type allows them.
    plan: v.plan as contract.VersionView['plan'],
    stage: v.stage,
    stage_times: v.stage_times,
    failure: v.failure,
    error_message: v.failure?.message ?? null,
    superseded: v.superseded,
    reused_release: v.reused_release,
    retry_of: v.retry_of,
    metadata: v.metadata,
    health_passed_at: iso(v.health_passed_at),
    promoted_at: iso(v.promoted_at),
    archived_at: iso(v.archived_at),
    created_at: iso(v.created_at),
    updated_at: iso(v.updated_at),
  };
}

/** The wire has no word for "not decided yet"; `plan: null` says it. Until then, what the request points to. */
function expectedKind(v: Version): 'static' | 'dynamic' {
  const { kind, run_command, port } = v.request.overrides;
  if (kind === 'static' || kind === 'dynamic') return kind;
  return run_command !== undefined || port !== undefined ? 'dynamic' : 'static';
}

export async function presentVersions(call: AnyCall, rows: Version[]): Promise<contract.VersionView[]> {
  const ids = rows.map((row) => row.release_id).filter((id) => id !== null);
  const releases = await releasesById(call.deps.database.db, ids);
  return rows.map((row) => presentVersion(row, releases.get(row.release_id ?? '')));
}

export const versionHandlers: Mounted[] = [
  handle(contract.listVersions, async (call) => {
    const deployment = await findDeployment(call, call.params.id);
    const { limit: _l, cursor: _c, page: _p, page_size: _s, workspace_id, ...filter } = call.query;
    if (workspace_id !== undefined && workspace_id !== deployment.workspace_id)
      return reply({ data: [], next_cursor: null });
    const page = await listVersions(call.deps.database.db, deployment.id, filter, pageOf(call.query));
    return reply({ data: await presentVersions(call, page.data), next_cursor: page.next_cursor });
  }),
  handle(contract.getVersionById, async (call) =>
    data((await presentVersions(call, [await findVersion(call, null, call.params.version_id)]))[0]),
  ),
  handle(contract.getVersion, async (call) => {
    const deployment = await findDeployment(call, call.params.id);
    const version = await findVersion(call, deployment.id, call.params.version_id);
    return data((await presentVersions(call, [version]))[0]);
  }),
];
