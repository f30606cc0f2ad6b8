import type { Approval, ApprovalState } from '../domain/approval.ts';
import type { Conn, Db } from './db.ts';
import { type Page, type PageRequest, toPage } from './page.ts';
import { transact } from './transact.ts';

export type NewApproval = Pick<
  Approval,
  'id' | 'tenant_id' | 'project_id' | 'deployment_id' | 'version_id' | 'kind' | 'requested_by' | 'expires_at'
>;

/** The pending one of the same key for the same version, if there is one already. */
export async function ensureApproval(db: Db, row: NewApproval): Promise<Approval> {
  return transact(db, async (trx) => {
    await expireApprovals(trx);
    await trx
      .insertInto('approvals')
      .values({ ...row, state: 'pending' })
      .onConflict((c) => c.doNothing())
      .execute();
    return trx
      .selectFrom('approvals')
      .selectAll()
      .where('version_id', '=', row.version_id)
      .where('requested_by', '=', row.requested_by)
      .where('state', '=', 'pending')
      .executeTakeFirstOrThrow();
  });
}

export async function expireApprovals(db: Conn): Promise<void> {
  await db
    .updateTable('approvals')
    .set({ state: 'expired' })
    .where('state', '=', 'pending')
    .where('expires_at', '<=', new Date())
    .execute();
}

export async function getApproval(db: Conn, tenant_id: string, id: string): Promise<Approval | undefined> {
  return db
    .selectFrom('approvals')
    .selectAll()
    .where('tenant_id', '=', tenant_id)
    .where('id', '=', id)
    .executeTakeFirst();
}

export async function listApprovals(
  db: Conn,
  of: { tenant_id: string; project_id: string | null; state?: ApprovalState | undefined },
  page: PageRequest,
): Promise<Page<Approval>> {
  let query = db
    .selectFrom('approvals')
    .selectAll()
    .where('tenant_id', '=', of.tenant_id)
    .orderBy('id', 'desc')
    .limit(page.limit + 1)
    .offset(page.offset);
  if (of.project_id !== null) query = query.where('project_id', '=', of.project_id);
  if (of.state !== undefined) query = query.where('state', '=', of.state);
  if (page.cursor !== null) query = query.where('id', '<', page.cursor);
  return toPage(await query.execute(), page);
}

/** Undefined when it is not pending (any more): of two who decide, one does. */
export async function decideApproval(
  db: Conn,
  id: string,
  of: { state: 'approved' | 'denied'; decided_by: string },
): Promise<Approval | undefined> {
  return db
    .updateTable('approvals')
    .set({ ...of, decided_at: new Date() })
    .where('id', '=', id)
    .where('state', '=', 'pending')
    .where('expires_at', '>', new Date())
    .returningAll()
    .executeTakeFirst();
}

export async function recordApprovalOperation(
  db: Conn,
  id: string,
  operation_id: string | null,
): Promise<void> {
  await db.updateTable('approvals').set({ operation_id }).where('id', '=', id).execute();
}
