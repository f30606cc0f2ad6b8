import { KilnError } from '../domain/errors.ts';
import { type Sandbox, type SandboxState, sandboxMayBecome } from '../domain/sandbox.ts';
import { type Conn, json, type Trx } from './db.ts';
import { type Page, type PageRequest, toPage } from './page.ts';

export const SANDBOX_COLUMNS = [
  'id',
  'tenant_id',
  'workspace_id',
  'project_id',
  'external_workspace_id',
  'external_user_id',
  'external_project_id',
  'name',
  'slug',
  'state',
  'template_id',
  'size',
  'tags',
  'metadata',
  'timeout_sec',
  'idle_timeout_sec',
  'always_on',
  'persistent',
  'created_at',
  'updated_at',
  'destroyed_at',
] as const;

export type NewSandbox = Omit<Sandbox, 'created_at' | 'updated_at' | 'destroyed_at'> & {
  env_encrypted: string | null;
};

export async function insertSandbox(trx: Trx, row: NewSandbox): Promise<Sandbox> {
  return trx
    .insertInto('sandboxes')
    .values({
      ...row,
      tags: json(row.tags) as unknown as string,
      metadata: json(row.metadata) as unknown as string,
    })
    .returning(SANDBOX_COLUMNS)
    .executeTakeFirstOrThrow();
}

export async function getSandbox(db: Conn, tenant_id: string, id: string): Promise<Sandbox | undefined> {
  return db
    .selectFrom('sandboxes')
    .select(SANDBOX_COLUMNS)
    .where('tenant_id', '=', tenant_id)
    .where('id', '=', id)
    .executeTakeFirst();
}

export async function sandboxByName(db: Conn, tenant_id: string, name: string): Promise<Sandbox | undefined> {
  return db
    .selectFrom('sandboxes')
    .select(SANDBOX_COLUMNS)
    .where('tenant_id', '=', tenant_id)
    .where('name', '=', name)
    .where('destroyed_at', 'is', null)
    .executeTakeFirst();
}

export interface SandboxFilter {
  state?: SandboxState;
  project_id?: string;
  workspace_id?: string;
  tags?: string[];
  external_workspace_id?: string;
  external_user_id?: string;
  external_project_id?: string;
}

export async function listSandboxes(
  db: Conn,
  tenant_id: string,
  filter: SandboxFilter,
  page: PageRequest,
): Promise<Page<Sandbox>> {
  let query = db
    .selectFrom('sandboxes')
    .select(SANDBOX_COLUMNS)
    .where('tenant_id', '=', tenant_id)
    .orderBy('id', 'desc')
    .limit(page.limit + 1)
    .offset(page.offset);
  if (page.cursor) query = query.where('id', '<', page.cursor);
  query = filter.state ? query.where('state', '=', filter.state) : query.where('destroyed_at', 'is', null);
  for (const field of [
    'workspace_id',
    'project_id',
    'external_workspace_id',
    'external_user_id',
    'external_project_id',
  ] as const)
    if (filter[field] !== undefined) query = query.where(field, '=', filter[field]);
  if (filter.tags) query = query.where((eb) => eb('tags', '@>', json(filter.tags!) as never));
  return toPage(await query.execute(), page);
}

export async function countSandboxes(db: Conn, tenant_id: string): Promise<number> {
  const row = await db
    .selectFrom('sandboxes')
    .select((eb) => eb.fn.countAll<number>().as('n'))
    .where('tenant_id', '=', tenant_id)
    .where('destroyed_at', 'is', null)
    .executeTakeFirstOrThrow();
  return Number(row.n);
}

/** The one writer of `state`. */
export async function setSandboxState(trx: Trx, sandbox: Sandbox, to: SandboxState): Promise<Sandbox> {
  if (!sandboxMayBecome(sandbox.state, to))
    throw new KilnError('CONFLICT', `Sandbox ${sandbox.id} is ${sandbox.state}; it cannot become ${to}.`);
  return trx
    .updateTable('sandboxes')
    .set({ state: to, updated_at: new Date(), destroyed_at: to === 'destroyed' ? new Date() : null })
    .where('id', '=', sandbox.id)
    .where('state', '=', sandbox.state)
    .returning(SANDBOX_COLUMNS)
    .executeTakeFirstOrThrow(
      () => new KilnError('CONFLICT', `Sandbox ${sandbox.id} changed meanwhile; try again.`),
    );
}

export type SandboxChange = Partial<
  Pick<Sandbox, 'name' | 'slug' | 'tags' | 'metadata' | 'always_on' | 'timeout_sec' | 'idle_timeout_sec'>
>;

export async function updateSandbox(trx: Trx, id: string, change: SandboxChange): Promise<Sandbox> {
  const { tags, metadata, ...plain } = change;
  return trx
    .updateTable('sandboxes')
    .set({
      ...plain,
      ...(tags === undefined ? {} : { tags: json(tags) as unknown as string }),
      ...(metadata === undefined ? {} : { metadata: json(metadata) as unknown as string }),
      updated_at: new Date(),
    })
    .where('id', '=', id)
    .returning(SANDBOX_COLUMNS)
    .executeTakeFirstOrThrow();
}

/** Ids of every sandbox whose folder must stay. */
export async function livingSandboxIds(db: Conn): Promise<string[]> {
  const rows = await db.selectFrom('sandboxes').select('id').where('destroyed_at', 'is', null).execute();
  return rows.map((row) => row.id);
}

/** Sealed variables of a sandbox; null when none were set. */
export async function sandboxEnv(db: Conn, id: string): Promise<string | null> {
  const row = await db
    .selectFrom('sandboxes')
    .select('env_encrypted')
    .where('id', '=', id)
    .executeTakeFirst();
  return row?.env_encrypted ?? null;
}

export async function setSandboxEnv(db: Conn, id: string, env_encrypted: string): Promise<void> {
  await db.updateTable('sandboxes').set({ env_encrypted }).where('id', '=', id).execute();
}
