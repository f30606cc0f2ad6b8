/** Row types of the tables. Domain nouns are rows without the store's private columns. */
import type { ColumnType, Generated, GeneratedAlways } from 'kysely';
import type { Approval } from '../domain/approval.ts';
import type { AuditEntry } from '../domain/audit.ts';
import type { Build } from '../domain/build.ts';
import type { Deployment } from '../domain/deployment.ts';
import type { Domain } from '../domain/domain.ts';
import type { Event } from '../domain/event.ts';
import type { Instance } from '../domain/instance.ts';
import type { Operation } from '../domain/operation.ts';
import type { Release } from '../domain/release.ts';
import type { Sandbox } from '../domain/sandbox.ts';
import type { SandboxSnapshot } from '../domain/snapshot.ts';
import type { ApiKey, Project, Tenant, Workspace } from '../domain/tenant.ts';
import type { Version } from '../domain/version.ts';
import type { Delivery, Webhook } from '../domain/webhook.ts';

/** jsonb columns: read as objects, written as JSON text (see `json()` in db.ts). */
type WrittenAs<T> = T extends Date | null
  ? Date | null
  : T extends string | number | boolean | null
    ? T
    : string | T;
type Columns<T> = { [K in keyof T]: ColumnType<T[K], WrittenAs<T[K]> | undefined, WrittenAs<T[K]>> };

export interface Tables {
  settings: { name: string; value: ColumnType<unknown, string, string> };
  tenants: Columns<Tenant> & { event_seq: Generated<number> };
  workspaces: Columns<Workspace>;
  projects: Columns<Project>;
  api_keys: Columns<ApiKey> & { key_hash: string };
  sandboxes: Columns<Sandbox> & { env_encrypted: string | null };
  sandbox_snapshots: Columns<SandboxSnapshot>;
  deployments: Columns<Deployment> & { last_version_number: Generated<number> };
  versions: Columns<Version> & { source_key: string; env_encrypted: string; build_env_encrypted: string };
  releases: Columns<Release>;
  builds: Columns<Build>;
  services: { id: string; tenant_id: string; deployment_id: string; name: string; type: string };
  operations: Columns<Operation>;
  instances: Columns<Instance>;
  env_vars: {
    deployment_id: string;
    environment: string;
    name: string;
    value_encrypted: string;
    preview: string;
    is_secret: boolean;
    at_build: boolean;
    created_at: Generated<Date>;
    updated_at: ColumnType<Date, Date | undefined, Date>;
  };
  events: Columns<Event>;
  idempotency_keys: {
    tenant_id: string;
    method: string;
    path: string;
    key: string;
    body_sha256: string;
    owner: string;
    locked_until: Date | null;
    status: number | null;
    answer: string | null;
    subject: ColumnType<Record<string, unknown> | null, string | null | undefined, string | null>;
    created_at: Generated<Date>;
  };
  engines: {
    id: string;
    host: string;
    pid: number;
    started_at: Generated<Date>;
    seen_at: ColumnType<Date, Date | undefined, Date>;
    acked_generation: ColumnType<number, number | undefined, number>;
  };
  route_table: { id: number; generation: number };
  webhooks: Columns<Webhook> & {
    headers_encrypted: string;
    secret_encrypted: string;
    leased_by: string | null;
    leased_until: Date | null;
  };
  /** `position`: the order of sending; ids made in one millisecond have none. */
  webhook_deliveries: Columns<Delivery> & { position: GeneratedAlways<number> };
  domains: Columns<Domain>;
  audit_log: Columns<AuditEntry>;
  approvals: Columns<Approval>;
  objects: {
    key: string;
    kind: string;
    size_bytes: number;
    created_at: Generated<Date>;
    last_used_at: ColumnType<Date, Date | undefined, Date>;
  };
}
