/** The owner of everything, resolved from the API key. */
export interface Tenant {
  id: string;
  name: string;
  slug: string;
  created_at: Date;
}

export interface Workspace {
  id: string;
  tenant_id: string;
  name: string;
  /** Its name within the tenant. */
  slug: string;
  /** Its name in host names, unique over the install: the slug, or with a suffix when another tenant came first. */
  host_label: string;
  external_id: string | null;
}

export interface Project {
  id: string;
  tenant_id: string;
  workspace_id: string;
  name: string;
  slug: string;
  external_id: string | null;
}

/** What a key may do. `*` is everything (the key made on first start). */
export type Scope =
  | '*'
  | 'sandboxes:read'
  | 'sandboxes:write'
  | 'deployments:read'
  | 'deployments:write'
  | 'deployments:publish'
  | 'deployments:promote'
  | 'deployments:propose'
  | 'domains:write'
  | 'data:write'
  | 'usage:read'
  | 'audit:read'
  | 'keys:write'
  | 'webhooks:write';

export interface ApiKey {
  id: string;
  tenant_id: string;
  name: string;
  /** First 12 characters, for recognition. */
  key_prefix: string;
  key_type: string;
  purpose: string | null;
  scopes: Scope[];
  /** When set, the key reaches this project only. */
  project_id: string | null;
  rate_limit_rpm: number;
  expires_at: Date | null;
  revoked_at: Date | null;
  last_used_at: Date | null;
  created_at: Date;
}
