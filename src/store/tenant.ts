import { sql } from 'kysely';
import { slugify } from '../domain/slug.ts';
import type { Project, Tenant, Workspace } from '../domain/tenant.ts';
import type { Conn, Trx } from './db.ts';

export type NewId = (prefix: import('../domain/ids.ts').IdPrefix) => string;

/** The tenant of a single-tenant install, made on first start together with its default workspace and project. */
export async function ensureTenant(
  trx: Trx,
  newId: NewId,
  named: { name: string; slug: string },
): Promise<Tenant> {
  const found = () => trx.selectFrom('tenants').selectAll().where('slug', '=', named.slug).executeTakeFirst();
  const there = await found();
  if (there) return there;
  const tenant = await trx
    .insertInto('tenants')
    .values({ id: newId('ten'), name: named.name, slug: named.slug })
    .onConflict((c) => c.doNothing())
    .returningAll()
    .executeTakeFirst();
  // Made by another engine that starts for the first time just now.
  if (!tenant) return (await found())!;
  await ensureOwner(trx, newId, tenant.id, {});
  return tenant;
}

/** Every database has one from the end of its first start on. */
export async function hasTenants(db: Conn): Promise<boolean> {
  return (await db.selectFrom('tenants').select('id').limit(1).executeTakeFirst()) !== undefined;
}

export async function getTenant(db: Conn, id: string): Promise<Tenant | undefined> {
  return db.selectFrom('tenants').selectAll().where('id', '=', id).executeTakeFirst();
}

export interface OwnerSelector {
  workspace_id?: string;
  workspace_slug?: string;
  workspace_name?: string;
  project_id?: string;
  project_slug?: string;
  project_name?: string;
  external_workspace_id?: string;
  external_project_id?: string;
}

/**
 * The workspace and project that attribution fields name, found or made; without any, the default ones. Ids that
 * do not exist in this tenant give undefined (the caller answers 404).
 */
export async function ensureOwner(
  trx: Trx,
  newId: NewId,
  tenant_id: string,
  by: OwnerSelector,
): Promise<{ workspace: Workspace; project: Project } | undefined> {
  const project = by.project_id ? await projectById(trx, tenant_id, by.project_id) : undefined;
  if (by.project_id && !project) return undefined;
  const workspace = await ensureWorkspace(trx, newId, tenant_id, {
    ...by,
    workspace_id: project?.workspace_id ?? by.workspace_id,
  });
  if (!workspace) return undefined;
  if (project) return { workspace, project };
  return { workspace, project: await ensureProject(trx, newId, workspace, by) };
}

async function projectById(trx: Conn, tenant_id: string, id: string): Promise<Project | undefined> {
  return trx
    .selectFrom('projects')
    .selectAll()
    .where('tenant_id', '=', tenant_id)
    .where('id', '=', id)
    .executeTakeFirst();
}

async function ensureWorkspace(
  trx: Trx,
  newId: NewId,
  tenant_id: string,
  by: OwnerSelector,
): Promise<Workspace | undefined> {
  const mine = trx.selectFrom('workspaces').selectAll().where('tenant_id', '=', tenant_id);
  if (by.workspace_id) return mine.where('id', '=', by.workspace_id).executeTakeFirst();
  const external_id = by.workspace_slug || by.workspace_name ? null : (by.external_workspace_id ?? null);
  const name = by.workspace_name ?? by.workspace_slug ?? external_id ?? 'default';
  const wanted = slugify(by.workspace_slug ?? name, 'workspace');
  const find = () =>
    (external_id !== null
      ? mine.where('external_id', '=', external_id)
      : mine.where('slug', '=', wanted)
    ).executeTakeFirst();
  const found = await find();
  if (found) return found;
  // Of two that choose one name at once, the second sees what the first made.
  await lockNames(trx, 'workspaces');
  const made_meanwhile = await find();
  if (made_meanwhile) return made_meanwhile;
  const isTaken = (column: 'slug' | 'host_label', query: typeof mine) => async (value: string) =>
    (await query.where(column, '=', value).executeTakeFirst()) !== undefined;
  const slug = await freeSlug(wanted, isTaken('slug', mine));
  const host_label = await freeSlug(slug, isTaken('host_label', trx.selectFrom('workspaces').selectAll()));
  return trx
    .insertInto('workspaces')
    .values({ id: newId('ws'), tenant_id, name, slug, host_label, external_id })
    .returningAll()
    .executeTakeFirstOrThrow();
}

async function ensureProject(
  trx: Trx,
  newId: NewId,
  workspace: Workspace,
  by: OwnerSelector,
): Promise<Project> {
  const mine = trx.selectFrom('projects').selectAll().where('workspace_id', '=', workspace.id);
  const external_id = by.project_slug || by.project_name ? null : (by.external_project_id ?? null);
  const name = by.project_name ?? by.project_slug ?? external_id ?? 'default';
  const wanted = slugify(by.project_slug ?? name, 'project');
  const find = () =>
    (external_id !== null
      ? mine.where('external_id', '=', external_id)
      : mine.where('slug', '=', wanted)
    ).executeTakeFirst();
  const found = await find();
  if (found) return found;
  await lockNames(trx, `projects:${workspace.id}`);
  const made_meanwhile = await find();
  if (made_meanwhile) return made_meanwhile;
  const slug = await freeSlug(
    wanted,
    async (s) => (await mine.where('slug', '=', s).executeTakeFirst()) !== undefined,
  );
  const { tenant_id, id: workspace_id } = workspace;
  return trx
    .insertInto('projects')
    .values({ id: newId('prj'), tenant_id, workspace_id, name, slug, external_id })
    .returningAll()
    .executeTakeFirstOrThrow();
}

/** `wanted`, or `wanted-2`, `wanted-3`, … */
export async function freeSlug(wanted: string, taken: (slug: string) => Promise<boolean>): Promise<string> {
  for (let n = 1; n < 1000; n++) {
    const slug = n === 1 ? wanted : `${wanted}-${n}`;
    if (!(await taken(slug))) return slug;
  }
  throw new Error(`no free slug like ${wanted}`);
}

export async function ping(db: Conn): Promise<void> {
  await sql`select 1`.execute(db);
}

const GROUPS = 1000;

export async function listWorkspaces(db: Conn, tenant_id: string): Promise<Workspace[]> {
  return db
    .selectFrom('workspaces')
    .select(['id', 'tenant_id', 'name', 'slug', 'host_label', 'external_id'])
    .where('tenant_id', '=', tenant_id)
    .orderBy('id')
    .limit(GROUPS)
    .execute();
}

export async function listProjects(db: Conn, tenant_id: string, workspace_id?: string): Promise<Project[]> {
  let query = db
    .selectFrom('projects')
    .select(['id', 'tenant_id', 'workspace_id', 'name', 'slug', 'external_id'])
    .where('tenant_id', '=', tenant_id)
    .orderBy('id')
    .limit(GROUPS);
  if (workspace_id !== undefined) query = query.where('workspace_id', '=', workspace_id);
  return query.execute();
}

export async function projectOf(db: Conn, tenant_id: string, id: string): Promise<Project | undefined> {
  return db
    .selectFrom('projects')
    .select(['id', 'tenant_id', 'workspace_id', 'name', 'slug', 'external_id'])
    .where('tenant_id', '=', tenant_id)
    .where('id', '=', id)
    .executeTakeFirst();
}

/** Waits its turn among those who choose a name in the same place; until the transaction ends. */
export async function lockNames(trx: Conn, place: string): Promise<void> {
  await sql`select pg_advisory_xact_lock(hashtextextended(${`names:${place}`}, 0))`.execute(trx);
}
