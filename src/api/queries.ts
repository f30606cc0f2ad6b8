/** Reads that only the API needs, several rows at a time, so that a list costs a few statements and not a few per row. */
import { sql } from 'kysely';
import type { Deployment } from '../domain/deployment.ts';
import type { Failure } from '../domain/failure.ts';
import type { Release } from '../domain/release.ts';
import type { Project, Workspace } from '../domain/tenant.ts';
import type { Conn } from '../store/db.ts';
import { deploymentById } from '../store/deployment.ts';

export interface DeploymentFacts {
  active_release_id: string | null;
  running_artifact_sha256: string | null;
  active_kind: string | null;
  current_build_id: string | null;
  newest_failure: Failure | null;
}

/** What the active and the newest version of each deployment add to its answer. */
export async function deploymentFacts(db: Conn, ids: string[]): Promise<Map<string, DeploymentFacts>> {
  if (ids.length === 0) return new Map();
  const { rows } = await sql<DeploymentFacts & { id: string }>`
    select d.id, a.release_id as active_release_id, r.sha256 as running_artifact_sha256, a.kind as active_kind,
           n.build_id as current_build_id, n.failure as newest_failure
      from deployments d
      left join versions a on a.id = d.active_version_id
      left join releases r on r.id = a.release_id
      left join lateral (select build_id, failure from versions v where v.deployment_id = d.id
                          order by v.id desc limit 1) n on true
     where d.id in (${sql.join(ids)})`.execute(db);
  return new Map(rows.map(({ id, ...facts }) => [id, facts]));
}

export async function releasesById(db: Conn, ids: string[]): Promise<Map<string, Release>> {
  if (ids.length === 0) return new Map();
  const rows = await db.selectFrom('releases').selectAll().where('id', 'in', ids).execute();
  return new Map(rows.map((row) => [row.id, row]));
}

export interface VersionOfRelease {
  id: string;
  build_id: string;
  source_sandbox_id: string | null;
  health_check_path: string | null;
}

export async function versionsOfReleases(db: Conn, ids: string[]): Promise<Map<string, VersionOfRelease>> {
  if (ids.length === 0) return new Map();
  const rows = await db
    .selectFrom('versions')
    .select(['id', 'build_id', 'source_sandbox_id', 'run_settings'])
    .where('id', 'in', ids)
    .execute();
  return new Map(
    rows.map(({ run_settings, ...row }) => [
      row.id,
      { ...row, health_check_path: run_settings?.health_check_path ?? null },
    ]),
  );
}

/** The newest version of any state: what `redeploy` takes when nothing is live, and whose log a stream follows. */
export async function newestVersionId(db: Conn, deployment_id: string): Promise<string | null> {
  const row = await db
    .selectFrom('versions')
    .select('id')
    .where('deployment_id', '=', deployment_id)
    .orderBy('id', 'desc')
    .limit(1)
    .executeTakeFirst();
  return row?.id ?? null;
}

export async function runtimeSeconds(db: Conn, deployment_id: string, hours: number): Promise<number> {
  const { rows } = await sql<{ seconds: number }>`
    select coalesce(sum(extract(epoch from coalesce(stopped_at, now())
             - greatest(started_at, now() - ${`${hours} hours`}::interval))), 0)::float8 as seconds
      from instances
     where deployment_id = ${deployment_id} and started_at is not null
       and coalesce(stopped_at, now()) > now() - ${`${hours} hours`}::interval`.execute(db);
  return Math.round(Number(rows[0]?.seconds ?? 0));
}

const GROUPS = 1000;

export async function listWorkspaces(db: Conn, tenant_id: string): Promise<Workspace[]> {
  return db
    .selectFrom('workspaces')
    .select(['id', 'tenant_id', 'name', 'slug', 'external_id'])
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

/** Sealed variables of a sandbox; null when none were set. */
export async function sandboxEnv(db: Conn, id: string): Promise<string | null> {
  const row = await db
    .selectFrom('sandboxes')
    .select('env_encrypted')
    .where('id', '=', id)
    .executeTakeFirst();
  return row?.env_encrypted ?? null;
}

export async function setSandboxEnv(db: Conn, id: string, env_encrypted: string): Promise<void> {
  await db.updateTable('sandboxes').set({ env_encrypted }).where('id', '=', id).execute();
}

/** Waits its turn among those who choose a name in the same place; until the transaction ends. */
export async function lockNames(trx: Conn, place: string): Promise<void> {
  await sql`select pg_advisory_xact_lock(hashtextextended(${`names:${place}`}, 0))`.execute(trx);
}
