import type { Build, BuildState } from '../domain/build.ts';
import { type Conn, storableText, type Trx } from './db.ts';
import { type Page, type PageRequest, toPage } from './page.ts';

export async function insertBuild(
  trx: Trx,
  row: Pick<Build, 'id' | 'tenant_id' | 'deployment_id' | 'version_id' | 'triggered_by'>,
): Promise<Build> {
  return trx
    .insertInto('builds')
    .values({ ...row, state: 'queued' })
    .returningAll()
    .executeTakeFirstOrThrow();
}

export async function getBuild(db: Conn, tenant_id: string, id: string): Promise<Build | undefined> {
  return db
    .selectFrom('builds')
    .selectAll()
    .where('tenant_id', '=', tenant_id)
    .where('id', '=', id)
    .executeTakeFirst();
}

export async function listBuilds(db: Conn, deployment_id: string, page: PageRequest): Promise<Page<Build>> {
  let query = db
    .selectFrom('builds')
    .selectAll()
    .where('deployment_id', '=', deployment_id)
    .orderBy('id', 'desc')
    .limit(page.limit + 1)
    .offset(page.offset);
  if (page.cursor) query = query.where('id', '<', page.cursor);
  return toPage(await query.execute(), page);
}

/** The one writer of `state`. A finished build stays as it is (a stage run twice changes nothing). */
export async function setBuildState(
  trx: Trx,
  id: string,
  to: BuildState,
  also: { error_message?: string; log_bytes?: number; peak_memory_bytes?: number } = {},
): Promise<void> {
  const now = new Date();
  const { error_message, ...numbers } = also;
  const why = error_message === undefined ? {} : { error_message: storableText(error_message) };
  await trx
    .updateTable('builds')
    .set({
      ...numbers,
      ...why,
      state: to,
      ...(to === 'building' ? { started_at: now } : { finished_at: now }),
    })
    .where('id', '=', id)
    .where('state', 'in', ['queued', 'building'])
    .execute();
}
