import { type Kysely, sql } from 'kysely';

/** For what is asked every few seconds, and for streams of one deployment: without these all rows are read each time. */
export async function up(db: Kysely<unknown>): Promise<void> {
  for (const statement of STATEMENTS) await sql.raw(statement).execute(db);
}

const STATEMENTS = [
  `create index versions_dynamic on versions (id) where kind = 'dynamic' and release_id is not null`,
  `create index events_deployment on events (deployment_id, seq)`,
];
