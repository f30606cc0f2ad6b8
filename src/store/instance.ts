import { sql } from 'kysely';
import { KilnError } from '../domain/errors.ts';
import type { Failure } from '../domain/failure.ts';
import type { PortHolder } from '../domain/held-port.ts';
import {
  type Instance,
  type InstanceRole,
  type InstanceState,
  instanceMayBecome,
} from '../domain/instance.ts';
import { type Conn, json, type Trx } from './db.ts';
import { type Page, type PageRequest, toPage } from './page.ts';
import { bumpRoutes } from './route.ts';

export type NewInstance = Pick<
  Instance,
  | 'id'
  | 'tenant_id'
  | 'deployment_id'
  | 'version_id'
  | 'release_id'
  | 'operation_id'
  | 'engine_id'
  | 'replica'
  | 'role'
>;

export async function insertInstance(trx: Trx, row: NewInstance): Promise<Instance> {
  return trx
    .insertInto('instances')
    .values({ ...row, state: 'provisioning' })
    .returningAll()
    .executeTakeFirstOrThrow();
}

export async function getInstance(db: Conn, tenant_id: string, id: string): Promise<Instance | undefined> {
  return db
    .selectFrom('instances')
    .selectAll()
    .where('tenant_id', '=', tenant_id)
    .where('id', '=', id)
    .executeTakeFirst();
}

export async function instanceById(db: Conn, id: string): Promise<Instance | undefined> {
  return db.selectFrom('instances').selectAll().where('id', '=', id).executeTakeFirst();
}

/** Every instance that is not stopped, of one deployment or of all. */
export async function unstoppedInstances(
  db: Conn,
  of: { deployment_id?: string; version_id?: string } = {},
): Promise<Instance[]> {
  let query = db.selectFrom('instances').selectAll().where('stopped_at', 'is', null).orderBy('id');
  if (of.deployment_id) query = query.where('deployment_id', '=', of.deployment_id);
  if (of.version_id) query = query.where('version_id', '=', of.version_id);
  return query.execute();
}

/** Who is entered with a port of this machine, a live one first. */
export async function portHolder(db: Conn, port: number): Promise<PortHolder | undefined> {
  return db
    .selectFrom('instances as i')
    .innerJoin('versions as v', 'v.id', 'i.version_id')
    .innerJoin('deployments as d', 'd.id', 'i.deployment_id')
    .select(['i.version_id', 'v.version_number', 'd.slug as deployment_slug', 'i.tenant_id', 'i.role'])
    .where('i.port', '=', port)
    .where('i.stopped_at', 'is', null)
    .orderBy((eb) => eb.case().when('i.role', '=', 'live').then(0).else(1).end())
    .orderBy('i.id')
    .executeTakeFirst();
}

/** For the API: those alive, then the most recently stopped ones. A page goes on after the cursor's place of now. */
export async function listInstances(
  db: Conn,
  deployment_id: string,
  page: PageRequest,
): Promise<Page<Instance>> {
  let query = db
    .selectFrom('instances')
    .selectAll()
    .where('deployment_id', '=', deployment_id)
    .orderBy((eb) => eb.case().when('stopped_at', 'is', null).then(0).else(1).end())
    .orderBy('id', 'desc')
    .limit(page.limit + 1)
    .offset(page.offset);
  const { cursor } = page;
  if (cursor !== null) {
    const is_alive = (await instanceById(db, cursor))?.stopped_at === null;
    query = query.where((eb) =>
      is_alive
        ? eb.or([eb('stopped_at', 'is not', null), eb('id', '<', cursor)])
        : eb.and([eb('stopped_at', 'is not', null), eb('id', '<', cursor)]),
    );
  }
  return toPage(await query.execute(), page);
}

/** The same, locked until the transaction ends, in the one order in which instances are locked (transact.ts). */
export async function lockUnstopped(
  trx: Trx,
  of: { deployment_id: string } | { version_id: string } | { operation_id: string },
): Promise<Instance[]> {
  let query = trx.selectFrom('instances').selectAll().where('stopped_at', 'is', null);
  if ('deployment_id' in of) query = query.where('deployment_id', '=', of.deployment_id);
  else if ('version_id' in of) query = query.where('version_id', '=', of.version_id);
  else query = query.where('operation_id', '=', of.operation_id);
  return query.orderBy('id').forNoKeyUpdate().execute();
}

export async function lockInstance(trx: Trx, id: string): Promise<Instance | undefined> {
  return trx.selectFrom('instances').selectAll().where('id', '=', id).forNoKeyUpdate().executeTakeFirst();
}

/**
 * Writes `role`, as nobody else does but `setInstanceState`, which retires what stops. A live instance coming or going
 * changes the routes in the same transaction.
 */
export async function setInstanceRole(trx: Trx, instance: Instance, to: InstanceRole): Promise<Instance> {
  if (instance.role === to) return instance;
  if (!instanceMayBecome(instance.role, to))
    throw new KilnError('CONFLICT', `Instance ${instance.id} is ${instance.role}; it cannot become ${to}.`);
  const row = await trx
    .updateTable('instances')
    .set({ role: to, updated_at: new Date() })
    .where('id', '=', instance.id)
    .where('role', '=', instance.role)
    .returningAll()
    .executeTakeFirstOrThrow(() => new KilnError('CONFLICT', `Instance ${instance.id} changed meanwhile.`));
  if (to === 'live' || instance.role === 'live') await bumpRoutes(trx);
  return row;
}

export type StateChange = Partial<
  Pick<
    Instance,
    | 'host'
    | 'port'
    | 'pid'
    | 'engine_id'
    | 'restart_count'
    | 'next_start_at'
    | 'started_at'
    | 'last_health_check_at'
  >
> & { failure?: Failure | null };

/**
 * The one writer of `state` and of what belongs to it (address, pid, failure). Undefined, and nothing written, when the
 * instance is stopped already, or is not what the caller takes it for: `from` names the states it may come from,
 * `engine_id` the engine that has it (I5: one that was thought dead writes nothing about what another took over).
 */
export async function setInstanceState(
  trx: Trx,
  id: string,
  to: InstanceState,
  also: StateChange = {},
  only: { from?: readonly InstanceState[] | undefined; engine_id?: string | null } = {},
): Promise<Instance | undefined> {
  const { failure, ...plain } = also;
  const before = await lockInstance(trx, id);
  if (!before || before.stopped_at !== null) return undefined;
  if (only.from !== undefined && !only.from.includes(before.state)) return undefined;
  if (only.engine_id !== undefined && only.engine_id !== before.engine_id) return undefined;
  const stopped = to === 'stopped' || to === 'destroyed';
  const row = await trx
    .updateTable('instances')
    .set({
      ...plain,
      state: to,
      updated_at: new Date(),
      ...(failure === undefined
        ? {}
        : { failure: failure === null ? null : (json(failure) as unknown as string) }),
      ...(stopped ? { stopped_at: new Date(), role: 'retired' as const, pid: null } : {}),
    })
    .where('id', '=', id)
    .returningAll()
    .executeTakeFirstOrThrow();
  const was_routed = before.role === 'live' && before.state === 'healthy';
  const is_routed = row.role === 'live' && row.state === 'healthy';
  if (was_routed !== is_routed || (is_routed && before.port !== row.port)) await bumpRoutes(trx);
  return row;
}

/** Those that an operation has started to be proved are over; whoever runs them ends them. Gives all that are not stopped yet. */
export async function retireGating(trx: Trx, operation_id: string): Promise<Instance[]> {
  const retired: Instance[] = [];
  for (const row of await lockUnstopped(trx, { operation_id }))
    if (row.role === 'gating') retired.push(await setInstanceRole(trx, row, 'retired'));
    else if (row.role === 'retired') retired.push(row);
  return retired;
}

/** Deployments with more or fewer live instances than they are to have. */
export async function deploymentsOutOfScale(db: Conn): Promise<string[]> {
  const { rows } = await sql<{ id: string }>`
    select d.id from deployments d
      join versions v on v.id = d.active_version_id and v.kind = 'dynamic' and v.release_id is not null
      left join instances i on i.version_id = v.id and i.role = 'live' and i.stopped_at is null
     where d.deleted_at is null
     group by d.id
    having count(i.id) <> case when d.state = 'stopped' then 0 else d.desired_replicas end
     order by d.id`.execute(db);
  return rows.map((row) => row.id);
}

/** Finished operations that have left instances to be proved, which nobody needs any more. */
export async function operationsWithOrphanedGating(db: Conn): Promise<string[]> {
  const rows = await db
    .selectFrom('instances')
    .innerJoin('operations', 'operations.id', 'instances.operation_id')
    .select('operations.id')
    .distinct()
    .where('instances.role', '=', 'gating')
    .where('instances.stopped_at', 'is', null)
    .where('operations.finished_at', 'is not', null)
    .execute();
  return rows.map((row) => row.id);
}

export async function touchInstanceHealth(
  db: Conn,
  of: { id: string; engine_id: string },
  at: Date,
): Promise<void> {
  await db
    .updateTable('instances')
    .set({ last_health_check_at: at })
    .where('id', '=', of.id)
    .where('engine_id', '=', of.engine_id)
    .execute();
}

/** Rows of instances that stopped long ago go; their versions keep the history. */
export async function deleteStoppedBefore(db: Conn, before: Date): Promise<string[]> {
  const rows = await db.deleteFrom('instances').where('stopped_at', '<', before).returning('id').execute();
  return rows.map((row) => row.id);
}

/** Of all instances together, within the last `hours`. */
export async function runtimeSeconds(db: Conn, deployment_id: string, hours: number): Promise<number> {
  const { rows } = await sql<{ seconds: number }>`
    select coalesce(sum(extract(epoch from coalesce(stopped_at, now())
             - greatest(started_at, now() - ${`${hours} hours`}::interval))), 0)::float8 as seconds
      from instances
     where deployment_id = ${deployment_id} and started_at is not null
       and coalesce(stopped_at, now()) > now() - ${`${hours} hours`}::interval`.execute(db);
  return Math.round(Number(rows[0]?.seconds ?? 0));
}
