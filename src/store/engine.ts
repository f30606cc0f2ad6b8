import { sql } from 'kysely';
import type { Conn } from './db.ts';

/** Engines that share this database. Each beats; one that is silent for long no longer counts. */
interface EngineOnHost {
  id: string;
  host: string;
  pid: number;
}

export async function registerEngine(db: Conn, of: EngineOnHost): Promise<void> {
  await db.insertInto('engines').values(of).execute();
}

/** True when it was removed as silent (its process stood still, say) and is entered again. */
export async function beatEngine(db: Conn, of: EngineOnHost): Promise<boolean> {
  const beat = await db
    .updateTable('engines')
    .set({ seen_at: sql<Date>`clock_timestamp()` })
    .where('id', '=', of.id)
    .executeTakeFirst();
  if (beat.numUpdatedRows > 0n) return false;
  await db
    .insertInto('engines')
    .values(of)
    .onConflict((c) => c.doNothing())
    .execute();
  return true;
}

export async function removeEngine(db: Conn, id: string): Promise<void> {
  await db.deleteFrom('engines').where('id', '=', id).execute();
}

export async function removeSilentEngines(db: Conn, silent_ms: number): Promise<void> {
  await db
    .deleteFrom('engines')
    .where('seen_at', '<', sql<Date>`clock_timestamp() - ${`${silent_ms} milliseconds`}::interval`)
    .execute();
}

export async function livingEngineIds(db: Conn): Promise<string[]> {
  return (await db.selectFrom('engines').select('id').execute()).map((row) => row.id);
}

export async function readSetting(db: Conn, name: string): Promise<unknown> {
  const row = await db.selectFrom('settings').select('value').where('name', '=', name).executeTakeFirst();
  return row?.value;
}

/** Written once; a later write of the same name is ignored. */
export async function writeSettingOnce(db: Conn, name: string, value: unknown): Promise<void> {
  await db
    .insertInto('settings')
    .values({ name, value: JSON.stringify(value) })
    .onConflict((c) => c.doNothing())
    .execute();
}
