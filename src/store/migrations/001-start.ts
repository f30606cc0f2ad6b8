import { type Kysely, sql } from 'kysely';

/** The tables of a whole install. Never edited after a release: later changes get their own numbered file. */
export async function up(db: Kysely<unknown>): Promise<void> {
  for (const statement of STATEMENTS) await sql.raw(statement).execute(db);
}

const ATTRIBUTION = `external_workspace_id text, external_user_id text, external_project_id text`;
const OWNERSHIP = `
  tenant_id text not null references tenants(id),
  workspace_id text not null references workspaces(id),
  project_id text not null references projects(id),
  ${ATTRIBUTION}`;
const TIMES = `created_at timestamptz not null default now(), updated_at timestamptz not null default now()`;

const STATEMENTS = [
  `create table settings (name text primary key, value jsonb not null)`,
  `create table tenants (
     id text primary key, name text not null, slug text not null unique,
     event_seq bigint not null default 0, created_at timestamptz not null default now())`,
  `create table workspaces (
     id text primary key, tenant_id text not null references tenants(id), name text not null, slug text not null,
     external_id text, created_at timestamptz not null default now(), unique (tenant_id, slug))`,
  `create unique index workspaces_external on workspaces (tenant_id, external_id) where external_id is not null`,
  `create table projects (
     id text primary key, tenant_id text not null references tenants(id),
     workspace_id text not null references workspaces(id), name text not null, slug text not null,
     external_id text, created_at timestamptz not null default now(), unique (workspace_id, slug))`,
  `create unique index projects_external on projects (workspace_id, external_id) where external_id is not null`,
  `create table api_keys (
     id text primary key, tenant_id text not null references tenants(id), name text not null,
     key_hash text not null unique, key_prefix text not null, key_type text not null default 'user', purpose text,
     scopes jsonb not null, project_id text references projects(id), rate_limit_rpm int not null,
     expires_at timestamptz, revoked_at timestamptz, last_used_at timestamptz,
     created_at timestamptz not null default now())`,
  `create table sandboxes (
     id text primary key, ${OWNERSHIP}, name text not null, slug text not null, state text not null,
     template_id text not null, size text not null, tags jsonb not null, metadata jsonb not null,
     env_encrypted text, timeout_sec int, idle_timeout_sec int, always_on boolean not null,
     persistent boolean not null, ${TIMES}, destroyed_at timestamptz)`,
  `create index sandboxes_tenant on sandboxes (tenant_id, id)`,
  `create unique index sandboxes_name on sandboxes (tenant_id, name) where destroyed_at is null`,
  `create table deployments (
     id text primary key, ${OWNERSHIP}, name text not null, slug text not null, state text not null,
     source_type text, repo_url text, branch text, auto_deploy boolean not null, settings jsonb not null,
     metadata jsonb not null, desired_replicas int not null, size text not null,
     active_version_id text, active_seq bigint not null default 0, last_seq bigint not null default 0,
     last_version_number int not null default 0, route_generation bigint not null default 0,
     ${TIMES}, deleted_at timestamptz)`,
  `create unique index deployments_slug on deployments (workspace_id, slug) where deleted_at is null`,
  `create index deployments_tenant on deployments (tenant_id, id)`,
  `create table versions (
     id text primary key, ${OWNERSHIP}, deployment_id text not null references deployments(id),
     version_number int not null, seq bigint not null, kind text, state text not null,
     source_sandbox_id text, source_sha256 text not null, source_key text not null,
     source_size_bytes bigint not null, source_files int not null,
     request jsonb not null, plan jsonb, run_settings jsonb, env_encrypted text not null, build_env_encrypted text not null,
     release_id text, build_id text not null, retry_of text, reused_release boolean not null default false,
     superseded boolean not null default false, failure jsonb, stage text, stage_times jsonb not null default '{}',
     metadata jsonb not null, health_passed_at timestamptz, promoted_at timestamptz, archived_at timestamptz,
     ${TIMES}, unique (deployment_id, version_number))`,
  `create index versions_deployment on versions (deployment_id, id)`,
  `create index versions_source on versions (source_key)`,
  `create table releases (
     id text primary key, ${OWNERSHIP}, deployment_id text not null references deployments(id),
     version_id text not null references versions(id), kind text not null, sha256 text not null,
     object_key text not null, size_bytes bigint not null, manifest jsonb not null, start_command text, port int,
     reuse_key text not null, ready_at timestamptz not null, collected_at timestamptz,
     created_at timestamptz not null default now())`,
  `create index releases_reuse on releases (deployment_id, reuse_key)`,
  `create index releases_object on releases (object_key)`,
  `create table builds (
     id text primary key, tenant_id text not null references tenants(id),
     deployment_id text not null references deployments(id), version_id text not null references versions(id),
     state text not null, triggered_by text not null, error_message text, log_bytes bigint not null default 0,
     peak_memory_bytes bigint, started_at timestamptz, finished_at timestamptz,
     created_at timestamptz not null default now())`,
  `create index builds_deployment on builds (deployment_id, id)`,
  `create table services (
     id text primary key, tenant_id text not null references tenants(id),
     deployment_id text not null references deployments(id), name text not null, type text not null,
     unique (deployment_id, name))`,
  `create table operations (
     id text primary key, tenant_id text not null references tenants(id), kind text not null,
     deployment_id text not null references deployments(id), version_id text not null references versions(id),
     seq bigint not null, state text not null, stage text not null, attempt int not null default 0,
     lease_owner text, lease_token bigint not null default 0, lease_expires_at timestamptz,
     stage_deadline_at timestamptz, cancel_requested_at timestamptz, promoted boolean,
     superseded boolean not null default false, failure jsonb,
     created_at timestamptz not null default now(), started_at timestamptz, finished_at timestamptz,
     unique (deployment_id, seq))`,
  `create index operations_unfinished on operations (deployment_id, seq) where finished_at is null`,
  `create index operations_version on operations (version_id)`,
  `create table instances (
     id text primary key, tenant_id text not null references tenants(id),
     deployment_id text not null references deployments(id), version_id text not null references versions(id),
     release_id text not null references releases(id), operation_id text, engine_id text, replica int not null,
     role text not null, state text not null, host text, port int, pid int, restart_count int not null default 0,
     next_start_at timestamptz, warm_until timestamptz, failure jsonb, last_health_check_at timestamptz,
     started_at timestamptz, stopped_at timestamptz, ${TIMES})`,
  `create index instances_deployment on instances (deployment_id, id)`,
  `create index instances_unstopped on instances (deployment_id) where stopped_at is null`,
  `create table env_vars (
     deployment_id text not null references deployments(id), environment text not null, name text not null,
     value_encrypted text not null, preview text not null, is_secret boolean not null, at_build boolean not null,
     ${TIMES}, primary key (deployment_id, environment, name))`,
  `create table events (
     id text primary key, tenant_id text not null references tenants(id), seq bigint not null, type text not null,
     deployment_id text, version_id text, operation_id text, data jsonb not null,
     created_at timestamptz not null default now(), unique (tenant_id, seq))`,
  `create index events_operation on events (operation_id, seq)`,
  `create index events_created on events (created_at)`,
  `create table idempotency_keys (
     tenant_id text not null, method text not null, path text not null, key text not null,
     body_sha256 text not null, owner text not null, locked_until timestamptz, status int, answer text, subject jsonb,
     created_at timestamptz not null default now(), primary key (tenant_id, method, path, key))`,
  `create index idempotency_created on idempotency_keys (created_at)`,
  `create table engines (
     id text primary key, host text not null, pid int not null, started_at timestamptz not null default now(),
     seen_at timestamptz not null default now(), acked_generation bigint not null default 0)`,
  `create table route_table (id int primary key, generation bigint not null)`,
  `insert into route_table (id, generation) values (1, 0)`,
  `create table objects (
     key text primary key, kind text not null, size_bytes bigint not null,
     created_at timestamptz not null default now(), last_used_at timestamptz not null default now())`,
];
