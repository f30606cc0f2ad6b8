/** A sandbox as the wire sees it. */
import type { Sandbox } from '../domain/sandbox.ts';
import type { SandboxView } from './contract/sandbox.ts';
import { SIZES, type SizeName } from './contract/size.ts';
import { iso } from './find.ts';

export function presentSandbox(s: Sandbox): SandboxView {
  const size = SIZES[s.size as SizeName] ?? SIZES.small;
  return {
    id: s.id,
    name: s.name,
    slug: s.slug,
    state: s.state,
    status: s.state,
    ready: s.state === 'running',
    template_id: s.template_id,
    image_id: null,
    size: s.size,
    resource_contract: shape(s.size as SizeName),
    cpu_count: size.vcpus,
    memory_mb: size.memory_mb,
    disk_mb: size.disk_size_mb,
    disk_size_mb: size.disk_size_mb,
    tenant_id: s.tenant_id,
    owner_id: null,
    workspace_id: s.workspace_id,
    project_id: s.project_id,
    external_workspace_id: s.external_workspace_id,
    external_user_id: s.external_user_id,
    external_project_id: s.external_project_id,
    tags: s.tags,
    timeout_sec: s.timeout_sec,
    timeout_remaining_ms: null,
    idle_timeout_sec: s.idle_timeout_sec,
    always_on: s.always_on,
    persistent: s.persistent,
    preview_url: null,
    metadata: s.metadata,
    created_at: iso(s.created_at),
    updated_at: iso(s.updated_at),
    started_at: iso(s.created_at),
    ready_at: iso(s.created_at),
    destroyed_at: iso(s.destroyed_at),
  };
}

export function shape(name: SizeName) {
  const known = SIZES[name] ? name : 'small';
  const { vcpus, memory_mb, disk_size_mb } = SIZES[known];
  return {
    id: `sandbox/${known}@v1`,
    version: 'v1',
    product: 'sandbox',
    size: known,
    vcpus,
    memory_mb,
    disk_size_mb,
  };
}
