import { sql } from 'kysely';
import { KilnError } from '../domain/errors.ts';
import type { Failure, Stage } from '../domain/failure.ts';
import type { Plan, ReleaseKind } from '../domain/plan.ts';
import type { RunSettings } from '../domain/settings.ts';
import { type Version, type VersionState, versionMayBecome } from '../domain/version.ts';
import { type Conn, json, jsonText, type Trx } from './db.ts';
import { type Page, type PageRequest, toPage } from './page.ts';

export const VERSION_COLUMNS = [
  'id',
  'tenant_id',
  'workspace_id',
  'project_id',
  'external_workspace_id',
  'external_user_id',
  'external_project_id',
  'deployment_id',
  'version_number',
  'seq',
  'kind',
  'state',
  'source_sandbox_id',
  'source_sha256',
  'source_size_bytes',
  'source_files',
  'request',
  'plan',
  'run_settings',
  'release_id',
  'build_id',
  'retry_of',
  'reused_release',
  'superseded',
  'failure',
  'stage',
  'stage_times',
  'metadata',
  'health_passed_at',
  'promoted_at',
  'archived_at',
  'created_at',
  'updated_at',
] as const;

export interface NewVersion
  extends Omit<
    Version,
    | 'kind'
    | 'state'
    | 'plan'
    | 'run_settings'
    | 'release_id'
    | 'reused_release'
    | 'superseded'
    | 'failure'
    | 'stage'
    | 'health_passed_at'
    | 'promoted_at'
    | 'archived_at'
    | 'created_at'
    | 'updated_at'
    | 'stage_times'
  > {
  source_key: string;
  env_encrypted: string;
  build_env_encrypted: string;
  stage_times: Version['stage_times'];
}

export async function insertVersion(trx: Trx, row: NewVersion): Promise<Version> {
  return trx
    .insertInto('versions')
    .values({
      ...row,
      state: 'created',
      stage: 'queued',
      request: json(row.request) as unknown as string,
      metadata: json(row.metadata) as unknown as string,
      stage_times: json(row.stage_times) as unknown as string,
    })
    .returning(VERSION_COLUMNS)
    .executeTakeFirstOrThrow();
}

export async function getVersion(db: Conn, tenant_id: string, id: string): Promise<Version | undefined> {
  return db
    .selectFrom('versions')
    .select(VERSION_COLUMNS)
    .where('tenant_id', '=', tenant_id)
    .where('id', '=', id)
    .executeTakeFirst();
}

export async function versionById(db: Conn, id: string): Promise<Version> {
  return db.selectFrom('versions').select(VERSION_COLUMNS).where('id', '=', id).executeTakeFirstOrThrow();
}

/** The private columns a build or a start needs. */
export async function versionSecrets(
  db: Conn,
  id: string,
): Promise<{ source_key: string; env_encrypted: string; build_env_encrypted: string }> {
  return db
    .selectFrom('versions')
    .select(['source_key', 'env_encrypted', 'build_env_encrypted'])
    .where('id', '=', id)
    .executeTakeFirstOrThrow();
}

export type RunFacts = Pick<Version, 'kind' | 'plan' | 'run_settings'> & { env_encrypted: string };

/** What versions run with, by id. */
export async function runFacts(db: Conn, ids: readonly string[]): Promise<Map<string, RunFacts>> {
  if (ids.length === 0) return new Map();
  const rows = await db
    .selectFrom('versions')
    .select(['id', 'kind', 'plan', 'run_settings', 'env_encrypted'])
    .where('id', 'in', ids)
    .execute();
  return new Map(rows.map(({ id, ...facts }) => [id, facts]));
}

export async function versionByRelease(
  db: Conn,
  deployment_id: string,
  release_id: string,
): Promise<Version | undefined> {
  return db
    .selectFrom('versions')
    .select(VERSION_COLUMNS)
    .where('deployment_id', '=', deployment_id)
    .where('release_id', '=', release_id)
    .orderBy('id', 'desc')
    .executeTakeFirst();
}

export async function listVersions(
  db: Conn,
  deployment_id: string,
  filter: {
    state?: VersionState;
    external_workspace_id?: string;
    external_user_id?: string;
    external_project_id?: string;
  },
  page: PageRequest,
): Promise<Page<Version>> {
  let query = db
    .selectFrom('versions')
    .select(VERSION_COLUMNS)
    .where('deployment_id', '=', deployment_id)
    .orderBy('id', 'desc')
    .limit(page.limit + 1)
    .offset(page.offset);
  if (page.cursor) query = query.where('id', '<', page.cursor);
  for (const field of ['state', 'external_workspace_id', 'external_user_id', 'external_project_id'] as const)
    if (filter[field] !== undefined) query = query.where(field, '=', filter[field]);
  return toPage(await query.execute(), page);
}

/**
 * The version that was active before the current one: the newest switch that is not in force any more. By the numbers of
 * the intents, not by times: a clock that was wrong for a while must not lead a rollback astray.
 */
export async function previousVersion(
  db: Conn,
  deployment_id: string,
  active_version_id: string | null,
): Promise<Version | undefined> {
  let query = db
    .selectFrom('operations')
    .innerJoin('versions', 'versions.id', 'operations.version_id')
    .select(VERSION_COLUMNS.map((column) => `versions.${column}` as const))
    .where('operations.deployment_id', '=', deployment_id)
    .where('operations.promoted', '=', true)
    .where('versions.state', '=', 'archived')
    .orderBy('operations.seq', 'desc')
    .limit(1);
  if (active_version_id) query = query.where('versions.id', '!=', active_version_id);
  return query.executeTakeFirst();
}

/** The one writer of `state`: checks the transition against the row's own state, in the database. */
export async function setVersionState(
  trx: Trx,
  id: string,
  to: VersionState,
  also: { failure?: Failure } = {},
): Promise<Version> {
  const from = (['created', 'building', 'ready', 'failed', 'archived'] as const).filter((s) =>
    versionMayBecome(s, to),
  );
  return trx
    .updateTable('versions')
    .set({
      state: to,
      updated_at: new Date(),
      ...(also.failure ? { failure: json(also.failure) as unknown as string } : {}),
      ...(to === 'archived' ? { archived_at: new Date() } : to === 'ready' ? { archived_at: null } : {}),
    })
    .where('id', '=', id)
    .where('state', 'in', from)
    .returning(VERSION_COLUMNS)
    .executeTakeFirstOrThrow(
      () => new KilnError('CONFLICT', `Version ${id} cannot become ${to} from its present state.`),
    );
}

/** The plan and what follows from it are written once (I1); the same again (a stage run twice) changes nothing. */
export async function recordPlan(
  trx: Trx,
  id: string,
  of: { plan: Plan; kind: ReleaseKind; run_settings: RunSettings },
): Promise<void> {
  const written = await trx
    .updateTable('versions')
    .set({
      plan: json(of.plan) as unknown as string,
      kind: of.kind,
      run_settings: json(of.run_settings) as unknown as string,
    })
    .where('id', '=', id)
    .where('plan', 'is', null)
    .executeTakeFirst();
  if (written.numUpdatedRows > 0n) return;
  const same = await trx
    .selectFrom('versions')
    .select('id')
    .where('id', '=', id)
    .where('kind', '=', of.kind)
    .where(sql<boolean>`plan = ${jsonText(of.plan)}::jsonb`)
    .where(sql<boolean>`run_settings = ${jsonText(of.run_settings)}::jsonb`)
    .executeTakeFirst();
  if (!same) throw new Error(`version ${id} already has another plan or other run settings`);
}

export async function recordRelease(
  trx: Trx,
  id: string,
  release_id: string,
  reused: boolean,
): Promise<void> {
  const result = await trx
    .updateTable('versions')
    .set({ release_id, reused_release: reused })
    .where('id', '=', id)
    .where((eb) => eb.or([eb('release_id', 'is', null), eb('release_id', '=', release_id)]))
    .executeTakeFirst();
  if (result.numUpdatedRows === 0n) throw new Error(`version ${id} already has another release`);
}

export async function recordStage(trx: Trx, id: string, stage: Stage): Promise<void> {
  await trx.updateTable('versions').set({ stage, updated_at: new Date() }).where('id', '=', id).execute();
}

export async function recordStageTime(
  trx: Trx,
  id: string,
  stage: Stage,
  duration_ms: number,
): Promise<void> {
  const times = JSON.stringify({ [stage]: Math.round(duration_ms) });
  await trx
    .updateTable('versions')
    .set({ stage_times: sql`stage_times || ${times}::jsonb` as never })
    .where('id', '=', id)
    .execute();
}

export async function recordHealthPassed(trx: Trx, id: string): Promise<void> {
  await trx.updateTable('versions').set({ health_passed_at: new Date() }).where('id', '=', id).execute();
}

export async function recordPromoted(trx: Trx, id: string): Promise<Version> {
  return trx
    .updateTable('versions')
    .set({ promoted_at: new Date(), superseded: false })
    .where('id', '=', id)
    .returning(VERSION_COLUMNS)
    .executeTakeFirstOrThrow();
}

export async function recordSuperseded(trx: Trx, id: string): Promise<void> {
  await trx.updateTable('versions').set({ superseded: true }).where('id', '=', id).execute();
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
    .orderBy('version_number', 'desc')
    .limit(1)
    .executeTakeFirst();
  return row?.id ?? null;
}
