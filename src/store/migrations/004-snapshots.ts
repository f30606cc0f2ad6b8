import { type Kysely, sql } from 'kysely';

/** Snapshots of sandboxes. */
export async function up(db: Kysely<unknown>): Promise<void> {
  for (const statement of STATEMENTS) await sql.raw(statement).execute(db);
}

const STATEMENTS = [
  `create table sandbox_snapshots (
     id text primary key, tenant_id text not null references tenants(id),
     workspace_id text not null references workspaces(id), project_id text not null references projects(id),
     external_workspace_id text, external_user_id text, external_project_id text,
     sandbox_id text not null references sandboxes(id), comment text, keep boolean not null, retention_seconds int,
     expires_at timestamptz, sha256 text not null, object_key text not null, size_bytes bigint not null,
     files int not null, secrets_left_out jsonb not null, last_used_at timestamptz, deleted_at timestamptz,
     created_at timestamptz not null default now(), updated_at timestamptz not null default now())`,
  `create index sandbox_snapshots_sandbox on sandbox_snapshots (sandbox_id, id)`,
  `create index sandbox_snapshots_object on sandbox_snapshots (object_key) where deleted_at is null`,
];
