/**
 * One idempotency key, one execution (I6). `begin` inserts the row or finds it; whoever inserted it executes. A
 * second request waits for the answer. The row is written before the work starts, so that it also holds across a
 * crash: a row left without an answer by a dead engine may be taken over once its lock has run out.
 */
import { sql } from 'kysely';
import { KilnError } from '../domain/errors.ts';
import type { Conn, Db } from './db.ts';

export interface KeyScope {
  tenant_id: string;
  method: string;
  path: string;
  key: string;
  /** Who executes: unique per request. What another one has taken over meanwhile is written by nobody else. */
  owner: string;
}

export interface StoredAnswer {
  status: number;
  answer: string;
  subject: Record<string, unknown> | null;
}

export type Begun =
  | { kind: 'execute'; previous_subject: Record<string, unknown> | null }
  | { kind: 'running' }
  | { kind: 'other_body' }
  | { kind: 'done'; stored: StoredAnswer };

export async function beginIdempotent(
  db: Db,
  scope: KeyScope,
  body_sha256: string,
  lock_ms: number,
): Promise<Begun> {
  const { owner } = scope;
  const locked_until = sql<Date>`clock_timestamp() + ${`${lock_ms} milliseconds`}::interval`;
  const inserted = await db
    .insertInto('idempotency_keys')
    .values({ ...scope, body_sha256, locked_until })
    .onConflict((c) => c.doNothing())
    .executeTakeFirst();
  if ((inserted.numInsertedOrUpdatedRows ?? 0n) > 0n) return { kind: 'execute', previous_subject: null };
  const row = await whole(db, scope);
  if (!row) return { kind: 'running' };
  if (row.body_sha256 !== body_sha256) return { kind: 'other_body' };
  if (row.status !== null && row.answer !== null)
    return { kind: 'done', stored: { status: row.status, answer: row.answer, subject: row.subject } };
  const taken = await db
    .updateTable('idempotency_keys')
    .set({ owner, locked_until })
    .where('tenant_id', '=', scope.tenant_id)
    .where('method', '=', scope.method)
    .where('path', '=', scope.path)
    .where('key', '=', scope.key)
    .where('status', 'is', null)
    .where('locked_until', '<=', sql<Date>`clock_timestamp()`)
    // As it is now: the one that held it may have recorded something since we looked.
    .returning('subject')
    .executeTakeFirst();
  return taken ? { kind: 'execute', previous_subject: taken.subject } : { kind: 'running' };
}

/** While the work runs: keeps the lock. */
export async function extendIdempotent(db: Conn, scope: KeyScope, lock_ms: number): Promise<void> {
  await mine(db, scope)
    .set({ locked_until: sql<Date>`clock_timestamp() + ${`${lock_ms} milliseconds`}::interval` })
    .execute();
}

/**
 * Written in the same transaction as the effect itself (a version row, say): if the engine dies before the answer is
 * stored, the next attempt finds what was made and does not make it again. Who no longer owns the key gets UNAVAILABLE,
 * and its transaction comes to nothing.
 */
export async function recordSubject(
  trx: Conn,
  scope: KeyScope,
  subject: Record<string, unknown>,
): Promise<void> {
  const { numUpdatedRows } = await mine(trx, scope)
    .set({ subject: JSON.stringify(subject) })
    .executeTakeFirst();
  if (numUpdatedRows === 0n)
    throw new KilnError(
      'UNAVAILABLE',
      'Another request with this Idempotency-Key took over, because this one was silent for too long. Send it again with the same key: you get the result of that one.',
    );
}

export async function finishIdempotent(
  db: Conn,
  scope: KeyScope,
  status: number,
  answer: string,
): Promise<void> {
  await mine(db, scope).set({ status, answer, locked_until: null }).execute();
}

/** 5xx and 429 are not stored: the same key may try again. */
export async function abandonIdempotent(db: Conn, scope: KeyScope): Promise<void> {
  await db
    .deleteFrom('idempotency_keys')
    .where('tenant_id', '=', scope.tenant_id)
    .where('method', '=', scope.method)
    .where('path', '=', scope.path)
    .where('key', '=', scope.key)
    .where('owner', '=', scope.owner)
    .where('status', 'is', null)
    .where('subject', 'is', null)
    .execute();
  await mine(db, scope).set({ locked_until: sql<Date>`clock_timestamp()` }).execute();
}

export async function readIdempotent(db: Conn, scope: KeyScope): Promise<StoredAnswer | 'running' | 'gone'> {
  const row = await whole(db, scope);
  if (!row) return 'gone';
  if (row.status === null || row.answer === null) return 'running';
  return { status: row.status, answer: row.answer, subject: row.subject };
}

/** Removes a stored answer: one that was overtaken, or (`before`) that is too old. A running one stays. */
export async function forgetIdempotent(db: Conn, scope: KeyScope, before: Date | null): Promise<void> {
  let query = db
    .deleteFrom('idempotency_keys')
    .where('tenant_id', '=', scope.tenant_id)
    .where('method', '=', scope.method)
    .where('path', '=', scope.path)
    .where('key', '=', scope.key)
    .where('status', 'is not', null);
  if (before) query = query.where('created_at', '<', before);
  await query.execute();
}

export async function deleteIdempotentBefore(db: Conn, before: Date): Promise<void> {
  await db.deleteFrom('idempotency_keys').where('created_at', '<', before).execute();
}

/** On the start of the only engine of a data folder: nobody is executing any more. */
export async function unlockAllIdempotent(db: Conn): Promise<void> {
  await db
    .updateTable('idempotency_keys')
    .set({ locked_until: sql<Date>`clock_timestamp()` })
    .where('status', 'is', null)
    .execute();
}

function whole(db: Conn, scope: KeyScope) {
  return db
    .selectFrom('idempotency_keys')
    .selectAll()
    .where('tenant_id', '=', scope.tenant_id)
    .where('method', '=', scope.method)
    .where('path', '=', scope.path)
    .where('key', '=', scope.key)
    .executeTakeFirst();
}

function mine(db: Conn, scope: KeyScope) {
  return db
    .updateTable('idempotency_keys')
    .where('tenant_id', '=', scope.tenant_id)
    .where('method', '=', scope.method)
    .where('path', '=', scope.path)
    .where('key', '=', scope.key)
    .where('owner', '=', scope.owner)
    .where('status', 'is', null);
}
