/** An embedded database for a test, in a folder that goes with it. */
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { type Database, openDatabase } from './db.ts';

/** Begins with the prepared database, as engines do: in memory it would have to be made anew (2 s of processor). */
export async function testDatabase(): Promise<Database> {
  const dir = await mkdtemp(path.join(os.tmpdir(), 'kiln-database-'));
  const database = await openDatabase({ dir });
  return {
    ...database,
    close: async () => {
      await database.close();
      await rm(dir, { recursive: true, force: true });
    },
  };
}
