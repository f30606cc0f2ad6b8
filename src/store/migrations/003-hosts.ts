import { type Kysely, sql } from 'kysely';

/**
 * Host labels. A workspace's slug is its name within its tenant; the label it has in host names is unique over the
 * install, so that no two tenants ever meet in one host. The first to have a slug keeps it as its label.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  for (const statement of STATEMENTS) await sql.raw(statement).execute(db);
}

const STATEMENTS = [
  `alter table workspaces add column host_label text`,
  // The id's end is random and as long as nobody guesses; `-` and 12 characters fit a label of 63.
  `update workspaces w set host_label = case
     when exists (select 1 from workspaces e where e.slug = w.slug and e.id < w.id)
     then w.slug || '-' || right(w.id, 12) else w.slug end`,
  `alter table workspaces alter column host_label set not null`,
  `create unique index workspaces_host_label on workspaces (host_label)`,
];
