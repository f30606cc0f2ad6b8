/**
 * Operations and their leases. The rules (I5) live in the SQL, not in the worker:
 *
 * - A publish may be claimed only when no earlier publish of its deployment is unfinished: first come, first served.
 *   Promotes and rollbacks do not wait (I4: a rollback acts at once); the sequence number decides who is in force.
 * - Claiming raises `lease_token`. Every transaction that a worker writes the story of its operation in calls `guard`
 *   first, after the deployment's lock where it needs that (transact.ts): it checks the token and extends the lease;
 *   zero rows changed means that the lease is lost, and nothing gets written.
 */
import { sql } from 'kysely';
import type { Failure, Stage } from '../domain/failure.ts';
import { isFinished, type Operation, type OperationKind } from '../domain/operation.ts';
import type { Verification } from '../domain/verification.ts';
import { type Conn, type Db, json, type Trx } from './db.ts';
import { lockDeployment } from './deployment.ts';
import { transact } from './transact.ts';

/** The worker no longer holds the operation: somebody else took it over, or it was finished. Write nothing more. */
export class LeaseLost extends Error {
  constructor(operation_id: string) {
    super(`the lease of operation ${operation_id} is lost`);
    this.name = 'LeaseLost';
  }
}

export interface Lease {
  operation_id: string;
  token: number;
}

export async function insertOperation(
  trx: Trx,
  row: {
    id: string;
    tenant_id: string;
    kind: OperationKind;
    deployment_id: string;
    version_id: string;
    seq: number;
  },
): Promise<Operation> {
  return trx
    .insertInto('operations')
    .values({ ...row, state: 'queued', stage: 'queued' })
    .returningAll()
    .executeTakeFirstOrThrow();
}

export async function getOperation(db: Conn, id: string): Promise<Operation | undefined> {
  return db.selectFrom('operations').selectAll().where('id', '=', id).executeTakeFirst();
}

/** The newest operation about a version. */
export async function operationOfVersion(db: Conn, version_id: string): Promise<Operation | undefined> {
  return db
    .selectFrom('operations')
    .selectAll()
    .where('version_id', '=', version_id)
    .orderBy('seq', 'desc')
    .executeTakeFirst();
}

export async function publishOfVersion(db: Conn, version_id: string): Promise<Operation | undefined> {
  return db
    .selectFrom('operations')
    .selectAll()
    .where('version_id', '=', version_id)
    .where('kind', '=', 'publish')
    .executeTakeFirst();
}

export async function unfinishedOf(db: Conn, deployment_id: string): Promise<Operation[]> {
  return db
    .selectFrom('operations')
    .selectAll()
    .where('deployment_id', '=', deployment_id)
    .where('finished_at', 'is', null)
    .orderBy('seq')
    .execute();
}

/** How many of these kinds wait or run. */
export async function countUnfinished(
  db: Conn,
  deployment_id: string,
  kinds: readonly OperationKind[],
): Promise<number> {
  const row = await db
    .selectFrom('operations')
    .select((eb) => eb.fn.countAll<number>().as('n'))
    .where('deployment_id', '=', deployment_id)
    .where('kind', 'in', kinds)
    .where('finished_at', 'is', null)
    .executeTakeFirstOrThrow();
  return Number(row.n);
}

/** Takes the operation under a lease, or null when it is not this worker's turn (finished, leased, or not first in line). */
export async function claimOperation(
  db: Db,
  id: string,
  by: { owner: string; lease_ms: number },
): Promise<Operation | null> {
  return transact(db, async (trx) => {
    const wanted = await getOperation(trx, id);
    if (!wanted || isFinished(wanted.state)) return null;
    await lockDeployment(trx, wanted.deployment_id);
    let query = trx
      .updateTable('operations')
      .set({
        state: 'running',
        lease_owner: by.owner,
        lease_token: sql<number>`lease_token + 1`,
        attempt: sql<number>`attempt + 1`,
        lease_expires_at: leaseEnd(by.lease_ms),
        // That of the attempt before: kept, it would take the lease away again before this one enters a stage.
        stage_deadline_at: null,
        started_at: sql<Date>`coalesce(started_at, clock_timestamp())`,
      })
      .where('id', '=', id)
      .where((eb) =>
        eb.or([
          eb('state', '=', 'queued'),
          eb.and([eb('state', '=', 'running'), eb('lease_expires_at', '<=', sql<Date>`clock_timestamp()`)]),
        ]),
      );
    if (wanted.kind === 'publish')
      query = query.where((eb) =>
        eb.not(
          eb.exists(
            eb
              .selectFrom('operations as earlier')
              .select('earlier.id')
              .where('earlier.deployment_id', '=', wanted.deployment_id)
              .where('earlier.kind', '=', 'publish')
              .where('earlier.seq', '<', wanted.seq)
              .where('earlier.finished_at', 'is', null),
          ),
        ),
      );
    return (await query.returningAll().executeTakeFirst()) ?? null;
  });
}

/** Keeps the lease; throws LeaseLost. Called on a timer, and first in the transactions of a worker (see above). */
export async function guard(trx: Conn, lease: Lease, lease_ms: number): Promise<Operation> {
  return trx
    .updateTable('operations')
    .set({ lease_expires_at: leaseEnd(lease_ms) })
    .where('id', '=', lease.operation_id)
    .where('lease_token', '=', lease.token)
    .where('state', '=', 'running')
    .returningAll()
    .executeTakeFirstOrThrow(() => new LeaseLost(lease.operation_id));
}

export async function recordOperationStage(
  trx: Trx,
  lease: Lease,
  stage: Stage,
  deadline_ms: number,
): Promise<void> {
  await trx
    .updateTable('operations')
    .set({
      stage,
      stage_deadline_at: sql<Date>`clock_timestamp() + ${`${deadline_ms} milliseconds`}::interval`,
    })
    .where('id', '=', lease.operation_id)
    .execute();
}

/** An engine that stops gives its turns back, so that the next one does not wait for the lease to run out. */
export async function releaseLease(db: Conn, lease: Lease): Promise<void> {
  await db
    .updateTable('operations')
    .set({ lease_expires_at: sql<Date>`clock_timestamp()` })
    .where('id', '=', lease.operation_id)
    .where('lease_token', '=', lease.token)
    .where('state', '=', 'running')
    .execute();
}

/**
 * Operations whose stage is over its deadline although somebody keeps renewing the lease. Taking the token away makes
 * that worker's next write fail; the operation is then claimed like any other whose worker is gone. The deadline goes
 * with the token: it was that worker's.
 */
export async function expireStuck(db: Conn, slack_ms: number): Promise<string[]> {
  const rows = await db
    .updateTable('operations')
    .set({
      lease_token: sql<number>`lease_token + 1`,
      lease_expires_at: sql<Date>`clock_timestamp()`,
      stage_deadline_at: null,
    })
    .where('state', '=', 'running')
    .where('finished_at', 'is', null) // the index of these
    .where('stage_deadline_at', '<', sql<Date>`clock_timestamp() - ${`${slack_ms} milliseconds`}::interval`)
    .returning('id')
    .execute();
  return rows.map((row) => row.id);
}

export interface Outcome {
  state: 'succeeded' | 'failed' | 'cancelled';
  promoted: boolean;
  superseded: boolean;
  failure: Failure | null;
  result?: Verification;
}

/**
 * The one writer of a final state. A worker has called `guard` in the same transaction; what ends without one (a switch
 * inside the request, a cancel of what is queued) holds the deployment's lock, without which nobody claims it.
 * Undefined when it had ended before.
 */
export async function finishOperation(
  trx: Trx,
  id: string,
  outcome: Outcome,
): Promise<Operation | undefined> {
  const { failure, result, ...plain } = outcome;
  return trx
    .updateTable('operations')
    .set({
      ...plain,
      failure: failure === null ? null : (json(failure) as unknown as string),
      ...(result ? { result: json(result) as unknown as string } : {}),
      finished_at: sql<Date>`clock_timestamp()`,
      lease_owner: null,
      lease_expires_at: null,
      stage_deadline_at: null,
    })
    .where('id', '=', id)
    .where('finished_at', 'is', null)
    .returningAll()
    .executeTakeFirst();
}

/** Ids of deployments in which something may be building. */
export async function unfinishedPublishes(db: Conn): Promise<string[]> {
  const rows = await db
    .selectFrom('operations')
    .select('deployment_id')
    .distinct()
    .where('kind', 'in', ['publish', 'verify'])
    .where('finished_at', 'is', null)
    .execute();
  return rows.map((row) => row.deployment_id);
}

/** The publish whose turn it is once an earlier one has finished. */
export async function nextPublish(trx: Conn, deployment_id: string): Promise<Operation | undefined> {
  return trx
    .selectFrom('operations')
    .selectAll()
    .where('deployment_id', '=', deployment_id)
    .where('kind', '=', 'publish')
    .where('finished_at', 'is', null)
    .orderBy('seq')
    .executeTakeFirst();
}

export async function requestCancel(trx: Trx, id: string): Promise<Operation | undefined> {
  return trx
    .updateTable('operations')
    .set({ cancel_requested_at: sql<Date>`coalesce(cancel_requested_at, clock_timestamp())` })
    .where('id', '=', id)
    .where('finished_at', 'is', null)
    .returningAll()
    .executeTakeFirst();
}

/** Operations nobody works on although they could be: queued and first in line, or with an expired lease. Oldest first. */
export async function abandonedOperations(
  db: Conn,
  of: { kinds: readonly OperationKind[]; limit: number },
): Promise<{ id: string; kind: OperationKind }[]> {
  const { rows } = await sql<{ id: string; kind: OperationKind }>`
    select o.id, o.kind from operations o
     where o.finished_at is null
       and o.kind in (${sql.join(of.kinds)})
       and (o.state = 'queued' or o.lease_expires_at <= clock_timestamp())
       and (o.kind <> 'publish' or not exists (
             select 1 from operations e where e.deployment_id = o.deployment_id and e.kind = 'publish'
                and e.seq < o.seq and e.finished_at is null))
     order by o.created_at limit ${of.limit}`.execute(db);
  return rows;
}

/** On the start of an engine: what it held in an earlier life is free at once (its data folder's lock is ours now). */
export async function expireLeasesOf(db: Conn, owner: string): Promise<void> {
  await db
    .updateTable('operations')
    .set({ lease_expires_at: sql<Date>`clock_timestamp()` })
    .where('state', '=', 'running')
    .where('lease_owner', '=', owner)
    .where('finished_at', 'is', null)
    .execute();
}

function leaseEnd(lease_ms: number) {
  return sql<Date>`clock_timestamp() + ${`${lease_ms} milliseconds`}::interval`;
}
