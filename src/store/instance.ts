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

/** The one writer of `role`. A live instance coming or going changes the routes in the same transaction. */
export async function setInstanceRole(
  trx: Trx,
  instance: Instance,
  to: InstanceRole,
  also: { warm_until?: Date | null } = {},
): Promise<Instance> {
  if (instance.role === to) return instance;
  if (!instanceMayBecome(instance.role, to))
    throw new KilnError('CONFLICT', `Instance ${instance.id} is ${instance.role}; it cannot become ${to}.`);
  const row = await trx
    .updateTable('instances')
    .set({ role: to, updated_at: new Date(), warm_until: also.warm_until ?? null })
    .where('id', '=', instance.id)
    .where('role', '=', instance.role)
    .returningAll()
    .executeTakeFirstOrThrow(() => new KilnError('CONFLICT', `Instance ${instance.id} changed meanwhile.`));
  if (to === 'live' || instance.role === 'live') await bumpRoutes(trx);
  return row;
}

/** The one writer of `state` and of what belongs to it (address, pid, failure). */
export async function setInstanceState(
  trx: Trx,
  id: string,
  to: InstanceState,
  also: Partial<
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
  > & { failure?: Failure | null } = {},
): Promise<Instance | undefined> {
  const { failure, ...plain } = also;
  const before = await trx
    .selectFrom('instances')
    .select(['state', 'role', 'port'])
    .where('id', '=', id)
    .forUpdate()
    .executeTakeFirst();
  if (!before) return undefined;
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
    .where('stopped_at', 'is', null)
    .returningAll()
    .executeTakeFirst();
  const was_routed = before.role === 'live' && before.state === 'healthy';
  const is_routed = row !== undefined && row.role === 'live' && row.state === 'healthy';
  if (was_routed !== is_routed || (is_routed && before.port !== row.port)) await bumpRoutes(trx);
  return row;
}

/** Instances that were started to be proved, whose operation has ended without needing them. */
export async function retireOrphanedGating(db: Conn): Promise<void> {
  await db
    .updateTable('instances')
    .set({ role: 'retired', updated_at: new Date() })
    .where('role', '=', 'gating')
    .where('stopped_at', 'is', null)
    .where((eb) =>
      eb.exists(
        eb
          .selectFrom('operations')
          .select('operations.id')
          .whereRef('operations.id', '=', 'instances.operation_id')
          .where('operations.finished_at', 'is not', null),
      ),
    )
    .execute();
}

export async function touchInstanceHealth(db: Conn, id: string, at: Date): Promise<void> {
  await db.updateTable('instances').set({ last_health_check_at: at }).where('id', '=', id).execute();
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
