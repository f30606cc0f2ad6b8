import { type Kysely, sql } from 'kysely';

/** Webhooks with their deliveries, custom domains, the audit log, approvals. */
export async function up(db: Kysely<unknown>): Promise<void> {
  for (const statement of STATEMENTS) await sql.raw(statement).execute(db);
}

const TIMES = `created_at timestamptz not null default now(), updated_at timestamptz not null default now()`;

const STATEMENTS = [
  `create table webhooks (
     id text primary key, tenant_id text not null references tenants(id), project_id text references projects(id),
     name text, url text not null, events jsonb not null, headers_encrypted text not null,
     secret_encrypted text not null, secret_preview text not null, retry_count int not null,
     metadata jsonb not null, is_active boolean not null default true,
     after_seq bigint not null, leased_by text, leased_until timestamptz, ${TIMES})`,
  `create index webhooks_tenant on webhooks (tenant_id, id)`,
  `create table webhook_deliveries (
     id text primary key, position bigint generated always as identity, tenant_id text not null,
     webhook_id text not null references webhooks(id) on delete cascade,
     event_id text not null, event_type text not null, body text not null, state text not null default 'pending',
     attempts int not null default 0, next_attempt_at timestamptz not null default now(), response_status int,
     response_excerpt text, error_message text, duration_ms int, replay_of text,
     created_at timestamptz not null default now(), finished_at timestamptz)`,
  `create index webhook_deliveries_log on webhook_deliveries (webhook_id, id)`,
  `create index webhook_deliveries_pending on webhook_deliveries (webhook_id, position) where state = 'pending'`,
  `create table domains (
     id text primary key, tenant_id text not null references tenants(id),
     workspace_id text references workspaces(id), project_id text references projects(id),
     external_workspace_id text, external_user_id text, external_project_id text,
     deployment_id text references deployments(id), domain text not null, state text not null,
     redirect_policy text not null, verification_token text not null, failure_message text,
     verified_at timestamptz, last_checked_at timestamptz, removed_at timestamptz, ${TIMES})`,
  // A claim without proof must not keep the owner out, so only proved names are unique over all tenants.
  `create unique index domains_proved on domains (domain) where state in ('verified', 'active')`,
  `create unique index domains_tenant on domains (tenant_id, domain) where removed_at is null`,
  `create index domains_deployment on domains (deployment_id) where removed_at is null`,
  `create table audit_log (
     id text primary key, tenant_id text not null references tenants(id), key_id text not null, key_name text not null,
     action text not null, method text not null, path text not null, params jsonb not null, fields jsonb not null,
     remote_address text, user_agent text, request_id text not null, status int, error_code text,
     created_at timestamptz not null default now(), finished_at timestamptz)`,
  `create index audit_log_tenant on audit_log (tenant_id, id)`,
  `create index audit_log_created on audit_log (created_at)`,
  `create table approvals (
     id text primary key, tenant_id text not null references tenants(id),
     project_id text not null references projects(id), deployment_id text not null references deployments(id),
     version_id text not null references versions(id), kind text not null, state text not null,
     requested_by text not null, decided_by text, operation_id text, expires_at timestamptz not null,
     decided_at timestamptz, created_at timestamptz not null default now())`,
  `create unique index approvals_pending on approvals (version_id, requested_by) where state = 'pending'`,
  `create index approvals_tenant on approvals (tenant_id, id)`,
];
