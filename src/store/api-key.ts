import type { ApiKey, Scope } from '../domain/tenant.ts';
import { type Conn, json } from './db.ts';
import { type Page, type PageRequest, toPage } from './page.ts';

const COLUMNS = [
  'id',
  'tenant_id',
  'name',
  'key_prefix',
  'key_type',
  'purpose',
  'scopes',
  'project_id',
  'rate_limit_rpm',
  'expires_at',
  'revoked_at',
  'last_used_at',
  'created_at',
] as const;

export interface NewApiKey {
  id: string;
  tenant_id: string;
  name: string;
  key_hash: string;
  key_prefix: string;
  key_type: string;
  purpose: string | null;
  scopes: Scope[];
  project_id: string | null;
  rate_limit_rpm: number;
  expires_at: Date | null;
}

export async function insertApiKey(db: Conn, key: NewApiKey): Promise<ApiKey> {
  return db
    .insertInto('api_keys')
    .values({ ...key, scopes: json(key.scopes) as unknown as string })
    .returning(COLUMNS)
    .executeTakeFirstOrThrow();
}

/** Looked up by hash: the database compares digests of 256-bit random keys, so timing tells nothing useful. */
export async function apiKeyByHash(db: Conn, key_hash: string): Promise<ApiKey | undefined> {
  return db.selectFrom('api_keys').select(COLUMNS).where('key_hash', '=', key_hash).executeTakeFirst();
}

export async function getApiKey(db: Conn, tenant_id: string, id: string): Promise<ApiKey | undefined> {
  return db
    .selectFrom('api_keys')
    .select(COLUMNS)
    .where('tenant_id', '=', tenant_id)
    .where('id', '=', id)
    .executeTakeFirst();
}

export async function listApiKeys(
  db: Conn,
  of: { tenant_id: string; project_id: string | null },
  page: PageRequest,
): Promise<Page<ApiKey>> {
  let query = db
    .selectFrom('api_keys')
    .select(COLUMNS)
    .where('tenant_id', '=', of.tenant_id)
    .orderBy('id', 'desc')
    .limit(page.limit + 1)
    .offset(page.offset);
  if (of.project_id !== null) query = query.where('project_id', '=', of.project_id);
  if (page.cursor) query = query.where('id', '<', page.cursor);
  return toPage(await query.execute(), page);
}

/** Keys that still work. */
export async function countApiKeys(db: Conn, tenant_id: string, now: Date): Promise<number> {
  const row = await db
    .selectFrom('api_keys')
    .select((eb) => eb.fn.countAll<number>().as('n'))
    .where('tenant_id', '=', tenant_id)
    .where('revoked_at', 'is', null)
    .where((eb) => eb.or([eb('expires_at', 'is', null), eb('expires_at', '>', now)]))
    .executeTakeFirstOrThrow();
  return Number(row.n);
}

export async function revokeApiKey(db: Conn, tenant_id: string, id: string): Promise<boolean> {
  const result = await db
    .updateTable('api_keys')
    .set({ revoked_at: new Date() })
    .where('tenant_id', '=', tenant_id)
    .where('id', '=', id)
    .executeTakeFirst();
  return result.numUpdatedRows > 0n;
}

export async function touchApiKey(db: Conn, id: string, at: Date): Promise<void> {
  await db.updateTable('api_keys').set({ last_used_at: at }).where('id', '=', id).execute();
}
