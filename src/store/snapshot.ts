import { sql } from 'kysely';
import type { SandboxSnapshot } from '../domain/snapshot.ts';
import { type Conn, json, type Trx } from './db.ts';
import { type Page, type PageRequest, toPage } from './page.ts';

export type NewSnapshot = Omit<SandboxSnapshot, 'last_used_at' | 'deleted_at' | 'created_at' | 'updated_at'>;

export async function insertSnapshot(trx: Trx, row: NewSnapshot): Promise<SandboxSnapshot> {
  return trx
    .insertInto('sandbox_snapshots')
    .values({ ...row, secrets_left_out: json(row.secrets_left_out) as unknown as string })
    .returningAll()
    .executeTakeFirstOrThrow();
}

/** Snapshots that are there: neither deleted nor expired. */
function living(db: Conn, tenant_id: string) {
  return db
    .selectFrom('sandbox_snapshots')
    .selectAll()
    .where('tenant_id', '=', tenant_id)
    .where('deleted_at', 'is', null)
    .where((eb) =>
      eb.or([eb('expires_at', 'is', null), eb('expires_at', '>', sql<Date>`clock_timestamp()`)]),
    );
}

export async function getSnapshot(
  db: Conn,
  tenant_id: string,
  id: string,
): Promise<SandboxSnapshot | undefined> {
  return living(db, tenant_id).where('id', '=', id).executeTakeFirst();
}

export async function listSnapshots(
  db: Conn,
  tenant_id: string,
  sandbox_id: string,
  page: PageRequest,
): Promise<Page<SandboxSnapshot>> {
  let query = living(db, tenant_id)
    .where('sandbox_id', '=', sandbox_id)
    .orderBy('id', 'desc')
    .limit(page.limit + 1)
    .offset(page.offset);
  if (page.cursor) query = query.where('id', '<', page.cursor);
  return toPage(await query.execute(), page);
}

export async function countSnapshots(db: Conn, tenant_id: string): Promise<number> {
  const rows = await living(db, tenant_id)
    .clearSelect()
    .select((eb) => eb.fn.countAll<number>().as('n'))
    .executeTakeFirstOrThrow();
  return Number(rows.n);
}

export async function deleteSnapshot(trx: Trx, id: string): Promise<void> {
  await trx
    .updateTable('sandbox_snapshots')
    .set({ deleted_at: sql<Date>`clock_timestamp()`, updated_at: sql<Date>`clock_timestamp()` })
    .where('id', '=', id)
    .execute();
}

export async function touchSnapshot(db: Conn, id: string): Promise<void> {
  await db
    .updateTable('sandbox_snapshots')
    .set({ last_used_at: sql<Date>`clock_timestamp()` })
    .where('id', '=', id)
    .execute();
}
