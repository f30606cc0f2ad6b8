import { sql } from 'kysely';
import type { Conn } from './db.ts';

/**
 * What Kiln has put into the object store. Retention decides from these rows and their references only: an object
 * without a row was not made by Kiln and is never touched.
 */
export interface StoredObject {
  key: string;
  kind: 'source' | 'release' | 'index';
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
