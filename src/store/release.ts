import type { Release } from '../domain/release.ts';
import { type Conn, json, type Trx } from './db.ts';
import type { StoredObject } from './object.ts';
import { type Page, type PageRequest, toPage } from './page.ts';

export async function insertRelease(
  trx: Trx,
  row: Omit<Release, 'created_at' | 'collected_at'>,
): Promise<Release> {
  return trx
    .insertInto('releases')
    .values({ ...row, manifest: json(row.manifest) as unknown as string })
    .returningAll()
    .executeTakeFirstOrThrow();
}

/** Every object that a release consists of. */
export function objectsOfRelease({
  object_key,
  manifest,
}: Pick<Release, 'object_key' | 'manifest'>): Pick<StoredObject, 'key' | 'kind'>[] {
  return [
    { key: object_key, kind: 'release' },
    ...(manifest.index_key ? [{ key: manifest.index_key, kind: 'index' as const }] : []),
    ...(manifest.blob_keys ?? []).map((key) => ({ key, kind: 'blob' as const })),
  ];
}

export async function getRelease(db: Conn, tenant_id: string, id: string): Promise<Release | undefined> {
  return db
    .selectFrom('releases')
    .selectAll()
    .where('tenant_id', '=', tenant_id)
    .where('id', '=', id)
    .executeTakeFirst();
}

export async function releaseById(db: Conn, id: string): Promise<Release> {
  return db.selectFrom('releases').selectAll().where('id', '=', id).executeTakeFirstOrThrow();
}

export async function listReleases(
  db: Conn,
  deployment_id: string,
  page: PageRequest,
): Promise<Page<Release>> {
  let query = db
    .selectFrom('releases')
    .selectAll()
    .where('deployment_id', '=', deployment_id)
    .orderBy('id', 'desc')
    .limit(page.limit + 1)
    .offset(page.offset);
  if (page.cursor) query = query.where('id', '<', page.cursor);
  return toPage(await query.execute(), page);
}

/** A stored release of this deployment made from equal inputs: the build may be skipped. */
export async function reusableRelease(
  db: Conn,
  deployment_id: string,
  reuse_key: string,
): Promise<Release | undefined> {
  return db
    .selectFrom('releases')
    .selectAll()
    .where('deployment_id', '=', deployment_id)
    .where('reuse_key', '=', reuse_key)
    .where('collected_at', 'is', null)
    .orderBy('id', 'desc')
    .executeTakeFirst();
}

export async function markCollected(trx: Trx, object_key: string, at: Date): Promise<void> {
  await trx.updateTable('releases').set({ collected_at: at }).where('object_key', '=', object_key).execute();
}

export async function releasesById(db: Conn, ids: string[]): Promise<Map<string, Release>> {
  if (ids.length === 0) return new Map();
  const rows = await db.selectFrom('releases').selectAll().where('id', 'in', ids).execute();
  return new Map(rows.map((row) => [row.id, row]));
}
