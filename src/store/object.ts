import { type RawBuilder, sql } from 'kysely';
import type { Conn, Trx } from './db.ts';
import type { ObjectStore } from './objects/port.ts';

/**
 * What Kiln has put into the object store. Retention decides from these rows and their references only, and touches no
 * object that has no row. Whoever stores an object, or finds it stored, calls `holdObjects` before anything refers to it.
 */
export interface StoredObject {
  key: string;
  kind: 'source' | 'release' | 'index' | 'blob';
  size_bytes: number;
  created_at: Date;
  last_used_at: Date;
}

/**
 * Enters an object, or says that it is used now: a collector that judged it before then spares it. Whether it is still
 * stored has to be asked afterwards, which `holdObjects` does.
 */
export async function recordObject(
  db: Conn,
  of: Pick<StoredObject, 'key' | 'kind' | 'size_bytes'>,
): Promise<void> {
  await db
    .insertInto('objects')
    .values(of)
    .onConflict((c) =>
      c.column('key').doUpdateSet({
        last_used_at: sql<Date>`clock_timestamp()`,
        kind: of.kind,
        size_bytes: of.size_bytes,
      }),
    )
    .execute();
}

/** Enters an object that is in no book; what is there already stays as it is. */
export async function recordStrayObject(
  db: Conn,
  of: Pick<StoredObject, 'key' | 'kind' | 'size_bytes'>,
): Promise<void> {
  await db
    .insertInto('objects')
    .values(of)
    .onConflict((c) => c.column('key').doNothing())
    .execute();
}

/**
 * Called by whoever is about to refer to stored objects. Each is entered as used now, and only then looked for: a
 * collector that has an object's row in hand is waited for, so what is found here stays. Null when all are stored, else
 * the key of one that is not.
 */
export async function holdObjects(
  db: Conn,
  store: Pick<ObjectStore, 'head'>,
  of: readonly Pick<StoredObject, 'key' | 'kind'>[],
): Promise<string | null> {
  // In one order, so that two transactions never wait for each other.
  for (const { key, kind } of [...of].sort((a, b) => (a.key < b.key ? -1 : 1))) {
    const stored = await store.head(key);
    if (stored === null) return key;
    await recordObject(db, { key, kind, size_bytes: stored.size_bytes });
  }
  for (const { key } of of) if ((await store.head(key)) === null) return key;
  return null;
}

export async function listObjects(db: Conn): Promise<StoredObject[]> {
  return (await db.selectFrom('objects').selectAll().orderBy('key').execute()) as StoredObject[];
}

export async function objectKeys(db: Conn): Promise<Set<string>> {
  const rows = await db.selectFrom('objects').select('key').execute();
  return new Set(rows.map((row) => row.key));
}

/**
 * Locks the row for removal, unless it was used again since it was read. The database counts microseconds and a Date
 * milliseconds, so the time that was read lies up to a millisecond before the one in the row.
 */
export async function lockUnused(trx: Trx, { key, last_used_at }: StoredObject): Promise<boolean> {
  const row = await trx
    .selectFrom('objects')
    .select('key')
    .where('key', '=', key)
    .where(sql<boolean>`date_trunc('milliseconds', last_used_at) <= ${last_used_at}`)
    .forUpdate()
    .executeTakeFirst();
  return row !== undefined;
}

export async function forgetObject(trx: Trx, key: string): Promise<void> {
  await trx.deleteFrom('objects').where('key', '=', key).execute();
}

/** While one of these holds, an object stays, however old it is. `running`: an instance of the version was not stopped. */
export const REASONS_TO_KEEP = ['active', 'unfinished', 'running', 'among the newest', 'a snapshot'] as const;

/** Why somebody may still need an object. */
export interface ObjectReference {
  why: (typeof REASONS_TO_KEEP)[number] | 'older';
  /** `version 3 of shop`, or the id of a snapshot. */
  what: string;
  /** Archived, else made. */
  since: Date;
}

interface ReferenceRow extends ObjectReference {
  source_key: string;
  object_key: string | null;
  index_key: string | null;
  blob_keys: string[] | null;
}

/** What a version refers to, and why; `place` is its rank among its deployment's versions, the newest being 1. */
const references = (place: RawBuilder<unknown>, keep_versions: number) => sql`
  select 'version ' || v.version_number || ' of ' || d.slug as what, coalesce(v.archived_at, v.created_at) as since,
         v.source_key, r.object_key, r.manifest->>'index_key' as index_key, r.manifest->'blob_keys' as blob_keys,
         case when d.deleted_at is not null then 'older'
              when d.active_version_id = v.id then 'active'
              when exists (select 1 from operations o where o.version_id = v.id and o.finished_at is null) then 'unfinished'
              when exists (select 1 from instances i where i.version_id = v.id and i.stopped_at is null) then 'running'
              when ${place} <= ${keep_versions} then 'among the newest'
              else 'older' end as why`;

const SNAPSHOTS = sql`
  select id as what, created_at as since, object_key as source_key, null::text as object_key, null::text as index_key,
         null::jsonb as blob_keys, 'a snapshot' as why
    from sandbox_snapshots
   where deleted_at is null and (expires_at is null or expires_at > clock_timestamp())`;

/**
 * Every reference to objects, by object key. A version refers to its source snapshot and, through its
 * release, to the artifact with its index or blobs; failed versions refer to their source (for `kiln retry`). Snapshots
 * of sandboxes refer to theirs until they are deleted or expire.
 */
export async function objectReferences(
  db: Conn,
  keep_versions: number,
): Promise<Map<string, ObjectReference[]>> {
  const { rows } = await sql<ReferenceRow>`
    with ranked as (
      select *, row_number() over (partition by deployment_id order by version_number desc) as place from versions)
    ${references(sql`v.place`, keep_versions)}
      from ranked v join deployments d on d.id = v.deployment_id left join releases r on r.id = v.release_id
    union all ${SNAPSHOTS}`.execute(db);
  const found = new Map<string, ObjectReference[]>();
  for (const { source_key, object_key, index_key, blob_keys, ...reference } of rows)
    for (const key of [source_key, object_key, index_key, ...(blob_keys ?? [])]) {
      if (key === null) continue;
      const known = found.get(key);
      if (known) known.push(reference);
      else found.set(key, [reference]);
    }
  return found;
}

/** The references to one object, as they are this moment. */
export async function referencesTo(db: Conn, key: string, keep_versions: number): Promise<ObjectReference[]> {
  const place = sql`(select count(*) from versions n
                      where n.deployment_id = v.deployment_id and n.version_number >= v.version_number)`;
  const { rows } = await sql<ReferenceRow>`
    ${references(place, keep_versions)}
      from versions v join deployments d on d.id = v.deployment_id left join releases r on r.id = v.release_id
     where v.source_key = ${key} or r.object_key = ${key} or r.manifest->>'index_key' = ${key}
        or r.manifest->'blob_keys' @> to_jsonb(${key}::text)
    union all ${SNAPSHOTS} and object_key = ${key}`.execute(db);
  return rows.map(({ why, what, since }) => ({ why, what, since }));
}

/** Of the builds and instances whose log may be wanted however old it is: those of what is live now. */
export async function idsOfLiveLogs(db: Conn): Promise<Set<string>> {
  const { rows } = await sql<{ id: string }>`
    select id from instances where stopped_at is null
    union
    select v.build_id from deployments d join versions v on v.id = d.active_version_id where d.deleted_at is null`.execute(
    db,
  );
  return new Set(rows.map((row) => row.id));
}
