import { sql } from 'kysely';
import type { AuditEntry } from '../domain/audit.ts';
import { type Conn, json } from './db.ts';
import { type Page, type PageRequest, toPage } from './page.ts';

/** Written before the work begins, so that no change is without its line. */
export async function beginAudit(
  db: Conn,
  row: Omit<AuditEntry, 'fields' | 'status' | 'error_code' | 'created_at' | 'finished_at'>,
): Promise<void> {
  await db
    .insertInto('audit_log')
    .values({
      ...row,
      params: json(row.params) as unknown as string,
      fields: json([]) as unknown as string,
    })
    .execute();
}

export async function finishAudit(
  db: Conn,
  id: string,
  of: { status: number; error_code: string | null; fields: string[] },
): Promise<void> {
  await db
    .updateTable('audit_log')

    .set({ ...of, fields: json(of.fields) as unknown as string, finished_at: new Date() })
    .where('id', '=', id)
    .execute();
}

/** `object_id` is any path parameter. Newest first. */
export async function listAudit(
  db: Conn,
  tenant_id: string,
  of: { key_id?: string | undefined; action?: string | undefined; object_id?: string | undefined },
  page: PageRequest,
): Promise<Page<AuditEntry>> {
  let query = db
    .selectFrom('audit_log')
    .selectAll()
    .where('tenant_id', '=', tenant_id)
    .orderBy('id', 'desc')
    .limit(page.limit + 1)
    .offset(page.offset);
  const { key_id, action, object_id } = of;
  if (key_id !== undefined) query = query.where('key_id', '=', key_id);
  if (action !== undefined) query = query.where('action', '=', action);
  if (object_id !== undefined)
    query = query.where(
      sql<boolean>`exists (select 1 from jsonb_each_text(params) p where p.value = ${object_id})`,
    );
  if (page.cursor !== null) query = query.where('id', '<', page.cursor);
  return toPage(await query.execute(), page);
}

export async function deleteAuditBefore(db: Conn, before: Date): Promise<void> {
  await db.deleteFrom('audit_log').where('created_at', '<', before).execute();
}
