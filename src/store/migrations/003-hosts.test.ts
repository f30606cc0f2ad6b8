import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PGlite } from '@electric-sql/pglite';
import { Kysely, PGliteDialect, sql } from 'kysely';
import { up as start } from './001-start.ts';
import { up as hosts } from './003-hosts.ts';

test('workspaces that met in one host are parted; the first keeps its address', async () => {
  const pglite = await PGlite.create('memory://');
  const db = new Kysely<unknown>({ dialect: new PGliteDialect({ pglite }) });
  try {
    await start(db);
    await sql`insert into tenants (id, name, slug) values ('ten_1', 'a', 'a'), ('ten_2', 'b', 'b')`.execute(
      db,
    );
    await sql`insert into workspaces (id, tenant_id, name, slug) values
      ('ws_01aaaaaaaaaaaaaaaaaaaaaaaa', 'ten_1', 'x', 'default'), ('ws_02bbbbbbbbbbbbbbbbbbbbbbbb', 'ten_2', 'x', 'default'),
      ('ws_03cccccccccccccccccccccccc', 'ten_2', 'y', 'acme')`.execute(db);
    await hosts(db);
    const { rows } = await sql<{ host_label: string }>`select host_label from workspaces order by id`.execute(
      db,
    );
    assert.deepEqual(
      rows.map((row) => row.host_label),
      ['default', 'default-bbbbbbbbbbbb', 'acme'],
    );
  } finally {
    await db.destroy();
  }
});
