import { sql } from 'kysely';
import type { Delivery, Webhook } from '../domain/webhook.ts';
import { type Conn, type Db, json, notify, type Trx } from './db.ts';
import { type eventsAfter, lastEventSeq, nextEvents } from './event.ts';
import { type Page, type PageRequest, toPage } from './page.ts';
import { transact } from './transact.ts';

const COLUMNS = [
  'id',
  'tenant_id',
  'project_id',
  'name',
  'url',
  'events',
  'secret_preview',
  'retry_count',
  'metadata',
  'is_active',
  'after_seq',
  'created_at',
  'updated_at',
] as const;

/** Secret and headers arrive sealed. */
export type NewWebhook = Omit<Webhook, 'is_active' | 'after_seq' | 'created_at' | 'updated_at'> & {
  headers_encrypted: string;
  secret_encrypted: string;
};

/** It hears of what happens from now on. */
export async function insertWebhook(trx: Trx, row: NewWebhook): Promise<Webhook> {
  return trx
    .insertInto('webhooks')
    .values({
      ...row,
      events: json(row.events) as unknown as string,
      metadata: json(row.metadata) as unknown as string,
      after_seq: await lastEventSeq(trx, row.tenant_id),
    })
    .returning(COLUMNS)
    .executeTakeFirstOrThrow();
}

export async function getWebhook(db: Conn, tenant_id: string, id: string): Promise<Webhook | undefined> {
  return db
    .selectFrom('webhooks')
    .select(COLUMNS)
    .where('tenant_id', '=', tenant_id)
    .where('id', '=', id)
    .executeTakeFirst();
}

export async function listWebhooks(
  db: Conn,
  of: { tenant_id: string; project_id: string | null },
  page: PageRequest,
): Promise<Page<Webhook>> {
  let query = db
    .selectFrom('webhooks')
    .select(COLUMNS)
    .where('tenant_id', '=', of.tenant_id)
    .orderBy('id', 'desc')
    .limit(page.limit + 1)
    .offset(page.offset);
  if (of.project_id !== null) query = query.where('project_id', '=', of.project_id);
  if (page.cursor !== null) query = query.where('id', '<', page.cursor);
  return toPage(await query.execute(), page);
}

export async function countWebhooks(db: Conn, tenant_id: string): Promise<number> {
  const row = await db
    .selectFrom('webhooks')
    .select((eb) => eb.fn.countAll<number>().as('n'))
    .where('tenant_id', '=', tenant_id)
    .executeTakeFirstOrThrow();
  return Number(row.n);
}

export type WebhookChange = Partial<
  Pick<Webhook, 'name' | 'url' | 'events' | 'retry_count' | 'metadata' | 'is_active'>
> & { headers_encrypted?: string };

/** One that is switched on again hears of what happens from then on. */
export async function updateWebhook(trx: Trx, before: Webhook, change: WebhookChange): Promise<Webhook> {
  const { events, metadata, ...plain } = change;
  const resumes = change.is_active === true && !before.is_active;
  return trx
    .updateTable('webhooks')
    .set({
      ...plain,
      ...(events === undefined ? {} : { events: json(events) as unknown as string }),
      ...(metadata === undefined ? {} : { metadata: json(metadata) as unknown as string }),
      ...(resumes ? { after_seq: await lastEventSeq(trx, before.tenant_id) } : {}),
      updated_at: new Date(),
    })
    .where('id', '=', before.id)
    .returning(COLUMNS)
    .executeTakeFirstOrThrow();
}

/** With its deliveries. */
export async function deleteWebhook(db: Conn, id: string): Promise<void> {
  await db.deleteFrom('webhooks').where('id', '=', id).execute();
}

export interface SealedWebhook {
  secret_encrypted: string;
  headers_encrypted: string;
}

export async function webhookSecrets(db: Conn, id: string): Promise<SealedWebhook | undefined> {
  return db
    .selectFrom('webhooks')
    .select(['secret_encrypted', 'headers_encrypted'])
    .where('id', '=', id)
    .executeTakeFirst();
}

/**
 * Webhooks that have something to do: events without delivery rows, or a delivery whose time has come (only the oldest
 * counts, for they go out in order). Leased ones are somebody's already.
 */
export async function dueWebhookIds(db: Conn): Promise<string[]> {
  const { rows } = await sql<{ id: string }>`
    select w.id from webhooks w join tenants t on t.id = w.tenant_id
     where w.is_active and (w.leased_until is null or w.leased_until < clock_timestamp())
       and (t.event_seq > w.after_seq
            or (select d.next_attempt_at from webhook_deliveries d
                 where d.webhook_id = w.id and d.state = 'pending' order by d.position limit 1) <= clock_timestamp())
     limit 1000`.execute(db);
  return rows.map((row) => row.id);
}

/** Of several engines one serves a webhook at a time; an engine that dies loses it when the lease runs out. */
export async function leaseWebhook(
  db: Conn,
  id: string,
  owner: string,
  lease_ms: number,
): Promise<Webhook | undefined> {
  return db
    .updateTable('webhooks')
    .set({
      leased_by: owner,
      leased_until: sql<Date>`clock_timestamp() + ${`${lease_ms} milliseconds`}::interval`,
    })
    .where('id', '=', id)
    .where('is_active', '=', true)
    .where((eb) =>
      eb.or([
        eb('leased_by', '=', owner),
        eb('leased_until', 'is', null),
        eb('leased_until', '<', sql<Date>`clock_timestamp()`),
      ]),
    )
    .returning(COLUMNS)
    .executeTakeFirst();
}

export async function releaseWebhook(db: Conn, id: string, owner: string): Promise<void> {
  await db
    .updateTable('webhooks')
    .set({ leased_by: null, leased_until: null })
    .where('id', '=', id)
    .where('leased_by', '=', owner)
    .execute();
}

/** On start: what an earlier life of this engine held is free. */
export async function releaseAllWebhooks(db: Conn, owner: string): Promise<void> {
  await db
    .updateTable('webhooks')
    .set({ leased_by: null, leased_until: null })
    .where('leased_by', '=', owner)
    .execute();
}

const FAN_OUT = 200;

/**
 * Writes a delivery for each further event of the stream that the webhook wants, and how far it has got, in one
 * transaction: every event has exactly one delivery, whenever the engine dies. False when there was no more.
 */
export async function fanOut(
  db: Db,
  webhook: Webhook,
  of: {
    wants: (event_type: string) => boolean;
    bodyOf: (event: Awaited<ReturnType<typeof eventsAfter>>[number]) => string;
    newId: () => string;
  },
): Promise<boolean> {
  return transact(db, async (trx) => {
    const row = await trx
      .selectFrom('webhooks')
      .select('after_seq')
      .where('id', '=', webhook.id)
      .forUpdate()
      .executeTakeFirst();
    if (!row) return false;
    const { tenant_id, project_id } = webhook;
    const { events, after_seq, is_last } = await nextEvents(trx, {
      tenant_id,
      after_seq: row.after_seq,
      limit: FAN_OUT,
      ...(project_id === null ? {} : { project_id }),
    });
    const wanted = events.filter((event) => of.wants(event.type));
    if (wanted.length > 0)
      await trx
        .insertInto('webhook_deliveries')
        .values(
          wanted.map((event) => ({
            ...blank(webhook, of.newId()),
            event_id: event.id,
            event_type: event.type,
            body: of.bodyOf(event),
          })),
        )
        .execute();
    await trx.updateTable('webhooks').set({ after_seq }).where('id', '=', webhook.id).execute();
    return !is_last;
  });
}

function blank(webhook: Pick<Webhook, 'id' | 'tenant_id'>, id: string) {
  return { id, tenant_id: webhook.tenant_id, webhook_id: webhook.id };
}

/** A test, or an earlier delivery once more. Wakes the engines. */
export async function insertDelivery(
  trx: Trx,
  webhook: Pick<Webhook, 'id' | 'tenant_id'>,
  row: Pick<Delivery, 'id' | 'event_id' | 'event_type' | 'body' | 'replay_of'>,
): Promise<Delivery> {
  const made = await trx
    .insertInto('webhook_deliveries')
    .values({ ...row, ...blank(webhook, row.id) })
    .returningAll()
    .executeTakeFirstOrThrow();
  await notify(trx, 'kiln_events', webhook.tenant_id);
  return made;
}

/** The oldest pending one, if its time has come by the clock of the database, as in `dueWebhookIds`. */
export async function dueDelivery(db: Conn, webhook_id: string): Promise<Delivery | undefined> {
  return db
    .selectFrom((eb) =>
      eb
        .selectFrom('webhook_deliveries')
        .selectAll()
        .where('webhook_id', '=', webhook_id)
        .where('state', '=', 'pending')
        .orderBy('position')
        .limit(1)
        .as('oldest'),
    )
    .selectAll()
    .where('next_attempt_at', '<=', sql<Date>`clock_timestamp()`)
    .executeTakeFirst();
}

export interface Attempted {
  state: Delivery['state'];
  /** Until the next attempt; null when there is none. */
  wait_ms: number | null;
  response_status: number | null;
  response_excerpt: string | null;
  error_message: string | null;
  duration_ms: number;
}

export async function recordAttempt(db: Conn, id: string, of: Attempted): Promise<void> {
  const { wait_ms, ...rest } = of;
  await db
    .updateTable('webhook_deliveries')
    .set({
      ...rest,
      attempts: sql<number>`attempts + 1`,
      ...(wait_ms === null
        ? { finished_at: sql<Date>`clock_timestamp()` }
        : { next_attempt_at: sql<Date>`clock_timestamp() + ${`${wait_ms} milliseconds`}::interval` }),
    })
    .where('id', '=', id)
    .execute();
}

export async function listDeliveries(
  db: Conn,
  of: { webhook_id: string; state?: Delivery['state'] | undefined },
  page: PageRequest,
): Promise<Page<Delivery>> {
  let query = db
    .selectFrom('webhook_deliveries')
    .selectAll()
    .where('webhook_id', '=', of.webhook_id)
    .orderBy('id', 'desc')
    .limit(page.limit + 1)
    .offset(page.offset);
  if (of.state !== undefined) query = query.where('state', '=', of.state);
  if (page.cursor !== null) query = query.where('id', '<', page.cursor);
  return toPage(await query.execute(), page);
}

export async function getDelivery(db: Conn, webhook_id: string, id: string): Promise<Delivery | undefined> {
  return db
    .selectFrom('webhook_deliveries')
    .selectAll()
    .where('webhook_id', '=', webhook_id)
    .where('id', '=', id)
    .executeTakeFirst();
}

export async function deleteDeliveriesBefore(db: Conn, before: Date): Promise<void> {
  await db
    .deleteFrom('webhook_deliveries')
    .where('finished_at', 'is not', null)
    .where('finished_at', '<', before)
    .execute();
}
