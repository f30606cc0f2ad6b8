import { sql } from 'kysely';
import { hostsOf, type RedirectPolicy } from '../domain/domain.ts';
import type { Plan } from '../domain/plan.ts';
import type { ArtifactKind, ArtifactManifest } from '../domain/release.ts';
import { type Conn, type Db, notify, type Trx } from './db.ts';
import { writeLast } from './transact.ts';

/**
 * The live table, as the edge reads it: one row per deployment host, with the generation of the whole table. Every
 * change of it raises the generation in the same transaction and notifies.
 */
export interface RouteRow {
  deployment_id: string;
  slug: string;
  host_label: string;
  state: string;
  version_id: string | null;
  release_id: string | null;
  release_kind: ArtifactKind | null;
  sha256: string | null;
  object_key: string | null;
  manifest: ArtifactManifest | null;
  plan: Plan | null;
  instances: { id: string; host: string; port: number }[];
  /** Proved domains: hosts that serve this deployment, and hosts that are sent on to another name. */
  hosts?: string[];
  redirects?: { from: string; to: string }[];
}

/** Raises the generation, once a transaction and at its end; its row lock orders all route changes. */
export async function bumpRoutes(trx: Trx): Promise<void> {
  await writeLast(trx, { routes: 'generation' }, () => raiseGeneration(trx));
}

async function raiseGeneration(trx: Trx): Promise<void> {
  const { generation } = await trx
    .updateTable('route_table')
    .set({ generation: sql<number>`generation + 1` })
    .where('id', '=', 1)
    .returning('generation')
    .executeTakeFirstOrThrow();
  await notify(trx, 'kiln_routes', String(generation));
}

export interface RouteRead {
  generation: number;
  rows: RouteRow[];
}

/** What a version serves; it never changes once the version can be active (I1). */
type Served = Pick<RouteRow, 'release_id' | 'release_kind' | 'sha256' | 'object_key' | 'manifest' | 'plan'>;

const NOTHING: Served = {
  release_id: null,
  release_kind: null,
  sha256: null,
  object_key: null,
  manifest: null,
  plan: null,
};

/**
 * Reads the live table again and again, and then only what may have changed: nothing while the generation is the same,
 * and of each version what it serves once. All engines that embed their database wait while it reads: with 5,000
 * deployments 1.2 s for all of it, 0.1 s for what may change.
 */
export function routeReader(db: Conn): () => Promise<RouteRead> {
  let served = new Map<string, Served>();
  let last: RouteRead | null = null;
  return async () => {
    if (last !== null && (await currentGeneration(db)) === last.generation) return last;
    const { generation, deployments, instances, domains } = await readLive(db);
    served = await servedBy(db, served, deployments);
    const instances_of = Map.groupBy(instances, (instance) => instance.version_id);
    const hosts_of = Map.groupBy(domains, (domain) => domain.deployment_id);
    const rows = deployments.map(({ id, version_id, ...deployment }): RouteRow => {
      const hosts = (hosts_of.get(id) ?? []).map(hostsOf);
      const running = version_id === null ? [] : (instances_of.get(version_id) ?? []);
      return {
        deployment_id: id,
        version_id,
        ...deployment,
        ...(served.get(version_id ?? '') ?? NOTHING),
        instances: running.map(({ id, host, port }) => ({ id, host, port })),
        hosts: hosts.flatMap(({ serves }) => serves),
        redirects: hosts.flatMap(({ redirects }) => redirects),
      };
    });
    last = { generation, rows };
    return last;
  };
}

/** Generation and rows of one instant. */
export function readRoutes(db: Conn): Promise<RouteRead> {
  return routeReader(db)();
}

interface Live {
  generation: number;
  deployments: (Pick<RouteRow, 'slug' | 'host_label' | 'state' | 'version_id'> & { id: string })[];
  instances: (RouteRow['instances'][number] & { version_id: string })[];
  domains: ProvedDomain[];
}

/** A single statement sees one snapshot. */
async function readLive(db: Conn): Promise<Live> {
  const { rows } = await sql<Live>`
    select t.generation::int8 as generation,
           (select coalesce(json_agg(json_build_object('id', d.id, 'slug', d.slug, 'host_label', w.host_label,
                                                       'state', d.state, 'version_id', d.active_version_id)), '[]')
              from deployments d join workspaces w on w.id = d.workspace_id
             where d.deleted_at is null) as deployments,
           (select coalesce(json_agg(json_build_object('id', i.id, 'host', i.host, 'port', i.port,
                                                       'version_id', i.version_id) order by i.replica), '[]')
              from instances i
             where i.role = 'live' and i.state = 'healthy' and i.stopped_at is null) as instances,
           (select coalesce(json_agg(json_build_object('deployment_id', m.deployment_id, 'domain', m.domain,
                                                       'redirect_policy', m.redirect_policy) order by m.domain), '[]')
              from domains m where m.state = 'active') as domains
      from route_table t
     where t.id = 1`.execute(db);
  const live = rows[0]!;
  return { ...live, generation: Number(live.generation) };
}

const VERSIONS_AT_ONCE = 500;

/** What the active versions serve: known already, or read now. Of others nothing is kept. */
async function servedBy(
  db: Conn,
  known: ReadonlyMap<string, Served>,
  deployments: Live['deployments'],
): Promise<Map<string, Served>> {
  const active = deployments.map((deployment) => deployment.version_id).filter((id) => id !== null);
  const served = new Map<string, Served>();
  const unknown: string[] = [];
  for (const id of active) {
    const found = known.get(id);
    if (found) served.set(id, found);
    else unknown.push(id);
  }
  for (let at = 0; at < unknown.length; at += VERSIONS_AT_ONCE) {
    const { rows } = await sql<Served & { id: string }>`
      select v.id, v.plan, r.id as release_id, r.kind as release_kind, r.sha256, r.object_key, r.manifest
        from versions v left join releases r on r.id = v.release_id
       where v.id in (${sql.join(unknown.slice(at, at + VERSIONS_AT_ONCE))})`.execute(db);
    for (const { id, ...row } of rows) served.set(id, row);
  }
  return served;
}

interface ProvedDomain {
  deployment_id: string;
  domain: string;
  redirect_policy: RedirectPolicy;
}

export async function currentGeneration(db: Conn): Promise<number> {
  const row = await db
    .selectFrom('route_table')
    .select('generation')
    .where('id', '=', 1)
    .executeTakeFirstOrThrow();
  return row.generation;
}

/** An edge says which generation it serves from now on. */
export async function acknowledgeRoutes(db: Db, engine_id: string, generation: number): Promise<void> {
  await db
    .updateTable('engines')
    .set({
      acked_generation: sql<number>`greatest(acked_generation, ${generation}::int8)`,
      seen_at: sql<Date>`clock_timestamp()`,
    })
    .where('id', '=', engine_id)
    .execute();
}

/** The generation that every living edge serves; edges not seen for `silent_ms` do not count. */
export async function ackedGeneration(db: Conn, silent_ms: number): Promise<number> {
  const row = await db
    .selectFrom('engines')
    .select((eb) => eb.fn.min('acked_generation').as('generation'))
    .where('seen_at', '>', sql<Date>`clock_timestamp() - ${`${silent_ms} milliseconds`}::interval`)
    .executeTakeFirst();
  return Number(row?.generation ?? 0);
}
