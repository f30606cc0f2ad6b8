import { sql } from 'kysely';
import type { Event, EventType } from '../domain/event.ts';
import { type Conn, json, notify, type Trx } from './db.ts';
import { writeLast } from './transact.ts';

export interface NewEvent {
  id: string;
  tenant_id: string;
  type: EventType;
  deployment_id?: string | null;
  version_id?: string | null;
  operation_id?: string | null;
  data: Record<string, unknown>;
}

/**
 * Appends to the tenant's stream, at the end of the transaction. The tenant row's lock is held until the commit, so
 * sequence numbers become visible in order: a reader that resumes after number n can never miss one below it.
 */
export async function appendEvent(trx: Trx, event: NewEvent): Promise<void> {
  await writeLast(trx, 'event', () => insertEvent(trx, event));
}

async function insertEvent(trx: Trx, event: NewEvent): Promise<void> {
  const { event_seq } = await trx
    .updateTable('tenants')
    .set({ event_seq: sql<number>`event_seq + 1` })
    .where('id', '=', event.tenant_id)
    .returning('event_seq')
    .executeTakeFirstOrThrow();
  await trx
    .insertInto('events')
    .values({
      id: event.id,
      tenant_id: event.tenant_id,
      seq: event_seq,
      type: event.type,
      deployment_id: event.deployment_id ?? null,
      version_id: event.version_id ?? null,
      operation_id: event.operation_id ?? null,
      data: json(event.data),
    })
    .execute();
  await notify(trx, 'kiln_events', event.tenant_id);
}

/** `project_id`: events of that project's deployments, and those whose data names it. */
export async function eventsAfter(
  db: Conn,
  of: {
    tenant_id: string;
    after_seq: number;
    deployment_id?: string;
    operation_id?: string;
    /** Events whose data names it. */
    sandbox_id?: string;
    project_id?: string;
    limit: number;
  },
): Promise<Event[]> {
  let query = db
    .selectFrom('events')
    .selectAll()
    .where('tenant_id', '=', of.tenant_id)
    .where('seq', '>', of.after_seq)
    .orderBy('seq')
    .limit(of.limit);
  if (of.deployment_id) query = query.where('deployment_id', '=', of.deployment_id);
  if (of.operation_id) query = query.where('operation_id', '=', of.operation_id);
  if (of.sandbox_id) query = query.where(sql<boolean>`events.data->>'sandbox_id' = ${of.sandbox_id}`);
  const { project_id } = of;
  if (project_id !== undefined)
    query = query.where((eb) =>
      eb.or([
        eb.and([eb('deployment_id', 'is', null), sql<boolean>`events.data->>'project_id' = ${project_id}`]),
        eb(
          'deployment_id',
          'in',
          eb
            .selectFrom('deployments')
            .select('deployments.id')
            .where('deployments.project_id', '=', project_id),
        ),
      ]),
    );
  return query.execute();
}

/**
 * The next batch of the wanted ones, and how far the stream was looked at for them: from there it goes on, so that what
 * is not wanted is passed over once.
 */
export async function nextEvents(
  db: Conn,
  of: Parameters<typeof eventsAfter>[1],
): Promise<{ events: Event[]; after_seq: number; is_last: boolean }> {
  // Asked for before the events are: what comes in between is not passed over.
  const last = await lastEventSeq(db, of.tenant_id);
  const events = await eventsAfter(db, of);
  const seen = events.at(-1)?.seq ?? of.after_seq;
  const is_last = events.length < of.limit;
  return { events, is_last, after_seq: is_last ? Math.max(seen, last) : seen };
}

/** Position of an event by id (SSE resume); null when retention has removed it. */
export async function eventSeq(db: Conn, tenant_id: string, id: string): Promise<number | null> {
  const row = await db
    .selectFrom('events')
    .select('seq')
    .where('tenant_id', '=', tenant_id)
    .where('id', '=', id)
    .executeTakeFirst();
  return row?.seq ?? null;
}

export async function lastEventSeq(db: Conn, tenant_id: string): Promise<number> {
  const row = await db
    .selectFrom('tenants')
    .select('event_seq')
    .where('id', '=', tenant_id)
    .executeTakeFirst();
  return row?.event_seq ?? 0;
}

export async function deleteEventsBefore(db: Conn, before: Date): Promise<number> {
  const result = await db.deleteFrom('events').where('created_at', '<', before).executeTakeFirst();
  return Number(result.numDeletedRows);
}
