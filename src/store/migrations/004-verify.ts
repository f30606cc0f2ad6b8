import { type Kysely, sql } from 'kysely';

/** What a verify found. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql.raw('alter table operations add column result jsonb').execute(db);
}
