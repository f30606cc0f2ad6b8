import { sql } from 'kysely';
import type { Conn } from './db.ts';

/**
 * What Kiln has put into the object store. Retention decides from these rows and their references only: an object
 * without a row was not made by Kiln and is never touched.
 */
export interface StoredObject {
  key: string;
  kind: 'source' | 'release' | 'index' | 'blob';
  size_bytes: number;
  created_at: Date;
  last_used_at: Date;
}

/** Called before an object is referenced; a second time only refreshes `last_used_at` (a collector then spares it). */
export async function recordObject(
  db: Conn,
  of: Pick<StoredObject, 'key' | 'kind' | 'size_bytes'>,
): Promise<void> {
  await db
    .insertInto('objects')
    .values(of)
    .onConflict((c) =>
      c.column('key').doUpdateSet({ last_used_at: sql<Date>`clock_timestamp()`, size_bytes: of.size_bytes }),
    )
    .execute();
}

export async function listObjects(db: Conn): Promise<StoredObject[]> {
  return (await db.selectFrom('objects').selectAll().orderBy('key').execute()) as StoredObject[];
}

/** Removes the row unless it was used again since `used_before` (a publish may just have found the object). */
export async function forgetObject(db: Conn, key: string, used_before: Date): Promise<boolean> {
  const result = await db
    .deleteFrom('objects')
    .where('key', '=', key)
    .where('last_used_at', '<=', used_before)
    .executeTakeFirst();
  return result.numDeletedRows > 0n;
}

/** Why somebody may still need an object. */
export interface ObjectReference {
  why: 'active' | 'unfinished' | 'warm' | 'among the newest' | 'older' | 'a snapshot';
  /** `version 3 of shop`, or the id of a snapshot. */
  what: string;
  /** Archived, else made. */
  since: Date;
}

/**
 * Every reference to objects, by object key. A version refers to its source snapshot and, through its
 * release, to the artifact with its index or blobs; failed versions refer to their source (for `kiln retry`). Snapshots
 * of sandboxes refer to theirs until they are deleted or expire.
 */
export async function objectReferences(
  db: Conn,
  keep_versions: number,
): Promise<Map<string, ObjectReference[]>> {
  const { rows } = await sql<
    ObjectReference & {
      source_key: string;
      object_key: string | null;
      index_key: string | null;
      blob_keys: string[] | null;
    }
  >`
    with ranked as (
      select v.*, row_number() over (partition by v.deployment_id order by v.version_number desc) as place
        from versions v)
    select 'version ' || v.version_number || ' of ' || d.slug as what, coalesce(v.archived_at, v.created_at) as since, v.source_key, r.object_key,
           r.manifest->>'index_key' as index_key, r.manifest->'blob_keys' as blob_keys,
           case when d.deleted_at is not null then 'older'
                when d.active_version_id = v.id then 'active'
                when exists (select 1 from operations o where o.version_id = v.id and o.finished_at is null) then 'unfinished'
                when exists (select 1 from instances i where i.version_id = v.id and i.stopped_at is null) then 'warm'
                when v.place <= ${keep_versions} then 'among the newest'
                else 'older' end as why
      from ranked v join deployments d on d.id = v.deployment_id left join releases r on r.id = v.release_id
    union all
    select id, created_at, object_key, null, null, null, 'a snapshot' from sandbox_snapshots
     where deleted_at is null and (expires_at is null or expires_at > clock_timestamp())`.execute(db);
  const references = new Map<string, ObjectReference[]>();
  for (const { source_key, object_key, index_key, blob_keys, ...reference } of rows)
    for (const key of [source_key, object_key, index_key, ...(blob_keys ?? [])])
      if (key !== null) references.set(key, [...(references.get(key) ?? []), reference]);
  return references;
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
