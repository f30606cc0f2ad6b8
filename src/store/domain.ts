import type { Domain, DomainState } from '../domain/domain.ts';
import type { Conn, Trx } from './db.ts';
import { type Page, type PageRequest, toPage } from './page.ts';
import { bumpRoutes } from './route.ts';

export type NewDomain = Omit<
  Domain,
  'state' | 'failure_message' | 'verified_at' | 'last_checked_at' | 'removed_at' | 'created_at' | 'updated_at'
>;

/** Undefined when the tenant has this name already. */
export async function insertDomain(trx: Trx, row: NewDomain): Promise<Domain | undefined> {
  return trx
    .insertInto('domains')
    .values({ ...row, state: 'pending' })
    .onConflict((c) => c.doNothing())
    .returningAll()
    .executeTakeFirst();
}

function living(db: Conn, tenant_id: string) {
  return db
    .selectFrom('domains')
    .selectAll()
    .where('tenant_id', '=', tenant_id)
    .where('removed_at', 'is', null);
}

export async function getDomain(db: Conn, tenant_id: string, id: string): Promise<Domain | undefined> {
  return living(db, tenant_id).where('id', '=', id).executeTakeFirst();
}

export async function domainByName(db: Conn, tenant_id: string, domain: string): Promise<Domain | undefined> {
  return living(db, tenant_id).where('domain', '=', domain).executeTakeFirst();
}

/** Has anybody on this install proved to control it? */
export async function isProved(db: Conn, domain: string): Promise<boolean> {
  const row = await db
    .selectFrom('domains')
    .select('id')
    .where('domain', '=', domain)
    .where('state', 'in', ['verified', 'active'])
    .executeTakeFirst();
  return row !== undefined;
}

export interface DomainFilter {
  deployment_id?: string | undefined;
  project_id?: string | undefined;
  external_workspace_id?: string | undefined;
  external_user_id?: string | undefined;
  external_project_id?: string | undefined;
}

export async function listDomains(
  db: Conn,
  tenant_id: string,
  filter: DomainFilter,
  page: PageRequest,
): Promise<Page<Domain>> {
  let query = living(db, tenant_id)
    .orderBy('id', 'desc')
    .limit(page.limit + 1)
    .offset(page.offset);
  for (const [column, value] of Object.entries(filter) as [keyof DomainFilter, string | undefined][])
    if (value !== undefined) query = query.where(column, '=', value);
  if (page.cursor !== null) query = query.where('id', '<', page.cursor);
  return toPage(await query.execute(), page);
}

export async function countDomains(db: Conn, tenant_id: string): Promise<number> {
  const row = await db
    .selectFrom('domains')
    .select((eb) => eb.fn.countAll<number>().as('n'))
    .where('tenant_id', '=', tenant_id)
    .where('removed_at', 'is', null)
    .executeTakeFirstOrThrow();
  return Number(row.n);
}

export type DomainChange = Partial<
  Pick<
    Domain,
    | 'deployment_id'
    | 'workspace_id'
    | 'project_id'
    | 'redirect_policy'
    | 'failure_message'
    | 'verified_at'
    | 'last_checked_at'
    | 'removed_at'
  >
> & { state?: DomainState };

/** Raises the route generation whenever what the edge sees may have changed. */
export async function updateDomain(trx: Trx, before: Domain, change: DomainChange): Promise<Domain> {
  const row = await trx
    .updateTable('domains')
    .set({ ...change, updated_at: new Date() })
    .where('id', '=', before.id)
    .returningAll()
    .executeTakeFirstOrThrow();
  if (before.state === 'active' || row.state === 'active') await bumpRoutes(trx);
  return row;
}

/** With the deployment goes what was attached to it. Its removal raises the route generation. */
export async function removeDomainsOf(trx: Trx, deployment_id: string): Promise<void> {
  await trx
    .updateTable('domains')
    .set({ state: 'removed', removed_at: new Date(), updated_at: new Date() })
    .where('deployment_id', '=', deployment_id)
    .where('removed_at', 'is', null)
    .execute();
}
