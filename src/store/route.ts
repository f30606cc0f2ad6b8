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

/** Generation and rows of one instant (a single statement sees one snapshot). */
export async function readRoutes(db: Conn): Promise<{ generation: number; rows: RouteRow[] }> {
  const { rows } = await sql<RouteRow & { generation: number; domains: ProvedDomain[] }>`
    select t.generation::int8 as generation, d.id as deployment_id, d.slug, w.host_label, d.state,
           d.active_version_id as version_id, r.id as release_id, r.kind as release_kind, r.sha256, r.object_key,
           r.manifest, v.plan,
           coalesce((select jsonb_agg(jsonb_build_object('id', i.id, 'host', i.host, 'port', i.port) order by i.replica)
              from instances i where i.deployment_id = d.id and i.version_id = d.active_version_id
               and i.role = 'live' and i.state = 'healthy' and i.stopped_at is null), '[]'::jsonb) as instances,
           coalesce((select jsonb_agg(jsonb_build_object('domain', m.domain, 'redirect_policy', m.redirect_policy)
                                      order by m.domain)
              from domains m where m.deployment_id = d.id and m.state = 'active'), '[]'::jsonb) as domains
      from route_table t
      left join deployments d on d.deleted_at is null
      left join workspaces w on w.id = d.workspace_id
      left join versions v on v.id = d.active_version_id
      left join releases r on r.id = v.release_id
     where t.id = 1`.execute(db);
  const generation = Number(rows[0]?.generation ?? 0);
  return {
    generation,
    rows: rows
      .filter((row) => row.deployment_id !== null)
      .map(({ domains, ...row }) => {
        const hosts = domains.map(hostsOf);
        return {
          ...row,
          hosts: hosts.flatMap(({ serves }) => serves),
          redirects: hosts.flatMap(({ redirects }) => redirects),
        };
      }),
  };
}

interface ProvedDomain {
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
