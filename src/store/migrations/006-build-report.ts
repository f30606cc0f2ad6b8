import { type Kysely, sql } from 'kysely';

/** What a build used and whom it talked to. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`alter table builds add column report jsonb`.execute(db);
}
