import { sql } from 'kysely';
import type { Deployment, DeploymentState } from '../domain/deployment.ts';
import { KilnError } from '../domain/errors.ts';
import type { Failure } from '../domain/failure.ts';
import { type Conn, json, type Trx } from './db.ts';
import { type Page, type PageRequest, toPage } from './page.ts';
import { bumpRoutes } from './route.ts';
import { writeLast } from './transact.ts';

export const DEPLOYMENT_COLUMNS = [
  'id',
  'tenant_id',
  'workspace_id',
  'project_id',
  'external_workspace_id',
  'external_user_id',
  'external_project_id',
  'name',
  'slug',
  'state',
  'source_type',
  'repo_url',
  'branch',
  'auto_deploy',
  'settings',
  'metadata',
  'desired_replicas',
  'size',
  'active_version_id',
  'active_seq',
  'last_seq',
  'route_generation',
  'created_at',
  'updated_at',
  'deleted_at',
] as const;

export type NewDeployment = Omit<
  Deployment,
  | 'created_at'
  | 'updated_at'
  | 'deleted_at'
  | 'active_version_id'
  | 'active_seq'
  | 'last_seq'
  | 'route_generation'
>;

export async function insertDeployment(trx: Trx, row: NewDeployment): Promise<Deployment> {
  return trx
    .insertInto('deployments')
    .values({
      ...row,
      settings: json(row.settings) as unknown as string,
      metadata: json(row.metadata) as unknown as string,
    })
    .returning(DEPLOYMENT_COLUMNS)
    .executeTakeFirstOrThrow();
}

export async function getDeployment(
  db: Conn,
  tenant_id: string,
  id: string,
): Promise<Deployment | undefined> {
  return db
    .selectFrom('deployments')
    .select(DEPLOYMENT_COLUMNS)
    .where('tenant_id', '=', tenant_id)
    .where('id', '=', id)
    .where('deleted_at', 'is', null)
    .executeTakeFirst();
}

export async function deploymentById(db: Conn, id: string): Promise<Deployment | undefined> {
  return db.selectFrom('deployments').select(DEPLOYMENT_COLUMNS).where('id', '=', id).executeTakeFirst();
}

/** By slug, else by exact name; the newest when several workspaces use it. */
export async function deploymentByName(
  db: Conn,
  tenant_id: string,
  name: string,
): Promise<Deployment | undefined> {
  return db
    .selectFrom('deployments')
    .select(DEPLOYMENT_COLUMNS)
    .where('tenant_id', '=', tenant_id)
    .where('deleted_at', 'is', null)
    .where((eb) => eb.or([eb('slug', '=', name), eb('name', '=', name)]))
    .orderBy(sql`case when slug = ${name} then 0 else 1 end`)
    .orderBy('id', 'desc')
    .executeTakeFirst();
}

export async function slugTaken(db: Conn, workspace_id: string, slug: string): Promise<boolean> {
  const row = await db
    .selectFrom('deployments')
    .select('id')
    .where('workspace_id', '=', workspace_id)
    .where('slug', '=', slug)
    .where('deleted_at', 'is', null)
    .executeTakeFirst();
  return row !== undefined;
}

export interface DeploymentFilter {
  state?: DeploymentState;
  project_id?: string;
  workspace_id?: string;
  external_workspace_id?: string;
  external_user_id?: string;
  external_project_id?: string;
}

export async function listDeployments(
  db: Conn,
  tenant_id: string,
  filter: DeploymentFilter,
  page: PageRequest,
): Promise<Page<Deployment>> {
  let query = db
    .selectFrom('deployments')
    .select(DEPLOYMENT_COLUMNS)
    .where('tenant_id', '=', tenant_id)
    .where('deleted_at', 'is', null)
    .orderBy('id', 'desc')
    .limit(page.limit + 1)
    .offset(page.offset);
  if (page.cursor) query = query.where('id', '<', page.cursor);
  for (const field of [
    'state',
    'project_id',
    'workspace_id',
    'external_workspace_id',
    'external_user_id',
    'external_project_id',
  ] as const)
    if (filter[field] !== undefined) query = query.where(field, '=', filter[field]);
  return toPage(await query.execute(), page);
}

/** Of every tenant. */
export async function livingDeploymentIds(db: Conn): Promise<string[]> {
  const rows = await db.selectFrom('deployments').select('id').where('deleted_at', 'is', null).execute();
  return rows.map((row) => row.id);
}

export async function countDeployments(db: Conn, tenant_id: string): Promise<number> {
  const row = await db
    .selectFrom('deployments')
    .select((eb) => eb.fn.countAll<number>().as('n'))
    .where('tenant_id', '=', tenant_id)
    .where('deleted_at', 'is', null)
    .executeTakeFirstOrThrow();
  return Number(row.n);
}

export type DeploymentChange = Partial<
  Pick<
    Deployment,
    | 'name'
    | 'slug'
    | 'branch'
    | 'repo_url'
    | 'auto_deploy'
    | 'settings'
    | 'metadata'
    | 'size'
    | 'external_workspace_id'
    | 'external_user_id'
    | 'external_project_id'
  >
>;

export async function updateDeployment(trx: Trx, id: string, change: DeploymentChange): Promise<Deployment> {
  const { settings, metadata, ...plain } = change;
  const row = await trx
    .updateTable('deployments')
    .set({
      ...plain,
      ...(settings === undefined ? {} : { settings: json(settings) as unknown as string }),
      ...(metadata === undefined ? {} : { metadata: json(metadata) as unknown as string }),
      updated_at: new Date(),
    })
    .where('id', '=', id)
    .returning(DEPLOYMENT_COLUMNS)
    .executeTakeFirstOrThrow();
  if (change.slug !== undefined) await bumpRoutes(trx);
  return row;
}

/**
 * None: stopped, and the edge says so; the wish for replicas stays for the next start. What was stopped runs again
 * with a number above 0, and with the next version that becomes active.
 */
export async function setReplicas(trx: Trx, id: string, replicas: number): Promise<Deployment> {
  const before = await lockLivingDeployment(trx, id);
  const started = before.active_version_id === null ? 'pending' : 'running';
  const state = replicas === 0 ? 'stopped' : before.state === 'stopped' ? started : before.state;
  const row = await trx
    .updateTable('deployments')
    .set({ state, ...(replicas === 0 ? {} : { desired_replicas: replicas }), updated_at: new Date() })
    .where('id', '=', id)
    .returning(DEPLOYMENT_COLUMNS)
    .executeTakeFirstOrThrow();
  if (state !== before.state) await bumpRoutes(trx);
  return row;
}

/**
 * Locks the row until the transaction ends: everything that must be in order per deployment starts here, before any
 * other lock (transact.ts). Rows that refer to the deployment can be written by others meanwhile.
 */
export async function lockDeployment(trx: Trx, id: string): Promise<Deployment> {
  return trx
    .selectFrom('deployments')
    .select(DEPLOYMENT_COLUMNS)
    .where('id', '=', id)
    .forNoKeyUpdate()
    .executeTakeFirstOrThrow(() => new KilnError('NOT_FOUND', `There is no deployment ${id}.`));
}

/** The same for whoever adds something to it. Errors: NOT_FOUND, also when it was removed meanwhile. */
export async function lockLivingDeployment(trx: Trx, id: string): Promise<Deployment> {
  const row = await lockDeployment(trx, id);
  if (row.deleted_at !== null) throw new KilnError('NOT_FOUND', `The deployment ${row.slug} was removed.`);
  return row;
}

/** Hands out the next sequence number (I4) when an intent is accepted. */
export async function takeSeq(trx: Trx, id: string): Promise<number> {
  const row = await trx
    .updateTable('deployments')
    .set({ last_seq: sql<number>`last_seq + 1` })
    .where('id', '=', id)
    .returning('last_seq')
    .executeTakeFirstOrThrow();
  return row.last_seq;
}

export async function takeVersionNumber(trx: Trx, id: string): Promise<number> {
  const row = await trx
    .updateTable('deployments')
    .set({ last_version_number: sql<number>`last_version_number + 1` })
    .where('id', '=', id)
    .returning('last_version_number')
    .executeTakeFirstOrThrow();
  return row.last_version_number;
}

export async function setDeploymentState(trx: Trx, id: string, state: DeploymentState): Promise<void> {
  await trx.updateTable('deployments').set({ state, updated_at: new Date() }).where('id', '=', id).execute();
}

/**
 * THE switch: one conditional write. False when a newer intent is in force already (I4), or the deployment is gone.
 * Which generation of the routes has it is in the row once the transaction has committed.
 */
export async function switchActiveVersion(
  trx: Trx,
  of: { deployment_id: string; version_id: string; seq: number },
): Promise<boolean> {
  const result = await trx
    .updateTable('deployments')
    .set({ active_version_id: of.version_id, active_seq: of.seq, state: 'running', updated_at: new Date() })
    .where('id', '=', of.deployment_id)
    .where('active_seq', '<', of.seq)
    .where('deleted_at', 'is', null)
    .executeTakeFirst();
  if (result.numUpdatedRows === 0n) return false;
  await bumpRoutes(trx);
  await writeLast(trx, { routes: `generation of ${of.deployment_id}` }, () =>
    trx
      .updateTable('deployments')
      .set({ route_generation: sql<number>`(select generation from route_table where id = 1)` })
      .where('id', '=', of.deployment_id)
      .execute(),
  );
  return true;
}

export async function markDeploymentDeleted(trx: Trx, id: string): Promise<void> {
  await trx
    .updateTable('deployments')
    .set({
      deleted_at: new Date(),
      active_version_id: null,
      state: 'stopped',
      active_seq: sql<number>`last_seq + 1`,
      last_seq: sql<number>`last_seq + 1`,
    })
    .where('id', '=', id)
    .execute();
  await bumpRoutes(trx);
}

export interface DeploymentFacts {
  /** Of its workspace. */
  host_label: string;
  active_release_id: string | null;
  running_artifact_sha256: string | null;
  active_kind: string | null;
  current_build_id: string | null;
  newest_failure: Failure | null;
  custom_domain_id: string | null;
}

/** What its workspace and its active and newest version add to the answer about each deployment. */
export async function deploymentFacts(db: Conn, ids: string[]): Promise<Map<string, DeploymentFacts>> {
  if (ids.length === 0) return new Map();
  const { rows } = await sql<DeploymentFacts & { id: string }>`
    select d.id, w.host_label, a.release_id as active_release_id, r.sha256 as running_artifact_sha256, a.kind as active_kind,
           n.build_id as current_build_id, n.failure as newest_failure,
           (select min(m.id) from domains m where m.deployment_id = d.id and m.state = 'active') as custom_domain_id
      from deployments d
      join workspaces w on w.id = d.workspace_id
      left join versions a on a.id = d.active_version_id
      left join releases r on r.id = a.release_id
      left join lateral (select build_id, failure from versions v where v.deployment_id = d.id
                          order by v.version_number desc limit 1) n on true
     where d.id in (${sql.join(ids)})`.execute(db);
  return new Map(rows.map(({ id, ...facts }) => [id, facts]));
}

/** By slug, else by name, within a workspace. */
export async function deploymentNamed(
  db: Conn,
  workspace_id: string,
  name: string,
): Promise<Deployment | undefined> {
  const row = await db
    .selectFrom('deployments')
    .select('id')
    .where('workspace_id', '=', workspace_id)
    .where('deleted_at', 'is', null)
    .where((eb) => eb.or([eb('slug', '=', name), eb('name', '=', name)]))
    .orderBy(sql`case when slug = ${name} then 0 else 1 end`)
    .orderBy('id', 'desc')
    .limit(1)
    .executeTakeFirst();
  return row === undefined ? undefined : deploymentById(db, row.id);
}
