/**
 * One database, two ways to have it: PGlite inside the data folder, or any Postgres (14 or newer) by URL. The same
 * SQL, migrations and tests run on both; `Database` is the only place that knows the difference.
 */
import { setFlagsFromString } from 'node:v8';
import { PGlite } from '@electric-sql/pglite';
import { Kysely, PGliteDialect, PostgresDialect, type RawBuilder, sql, type Transaction } from 'kysely';
import { Migrator } from 'kysely/migration';
import pg from 'pg';
import { type Db as BossDb, fromPglite } from 'pg-boss';
import { KilnError } from '../domain/errors.ts';
import * as migration001 from './migrations/001-start.ts';
import * as migration002 from './migrations/002-api.ts';
import * as migration003 from './migrations/003-hosts.ts';
import * as migration004 from './migrations/004-snapshots.ts';
import * as migration005 from './migrations/005-verify.ts';
import * as migration006 from './migrations/006-build-report.ts';
import * as migration007 from './migrations/007-indexes.ts';
import { withPreparedStatements } from './pglite-statements.ts';
import { placePrepared } from './prepared.ts';
import type { Tables } from './schema.ts';
import { SyncedFiles, withSync } from './synced-files.ts';

export type Db = Kysely<Tables>;
export type Trx = Transaction<Tables>;
/** Queries take either; those that must be atomic with others take a `Trx`. */
export type Conn = Db | Trx;

/** Channels of LISTEN/NOTIFY. A lost notification costs at most one periodic scan, never an outcome (I12). */
export type Channel = 'kiln_routes' | 'kiln_events' | 'kiln_work';

export interface Database {
  kind: 'pglite' | 'postgres';
  db: Db;
  /** The same database in the shape pg-boss takes, or the URL for its own pool. */
  forBoss: { db: BossDb; backend: 'pglite' } | { connectionString: string };
  listen(channel: Channel, on_payload: (payload: string) => void): Promise<() => Promise<void>>;
  /** Makes the room of rows that were changed or removed free for others. A server does that by itself. */
  reclaim(): Promise<void>;
  close(): Promise<void>;
}

const MIGRATIONS = {
  '001-start': migration001,
  '002-api': migration002,
  '003-hosts': migration003,
  '004-snapshots': migration004,
  '005-verify': migration005,
  '006-build-report': migration006,
  '007-indexes': migration007,
};

export function json<T>(value: T): RawBuilder<T> {
  return sql`${jsonText(value)}::jsonb`;
}

/** An escaped NUL or half of a surrogate pair (whole pairs are not escaped), unless the backslash is itself escaped. */
const UNSTORABLE_ESCAPE = /(?<=(?:^|[^\\])(?:\\\\)*)\\u(?:0000|d[89a-f][0-9a-f]{2})/g;

/**
 * JSON that Postgres takes. It refuses NUL and half characters in jsonb, and both come in with what builds and apps
 * print: the failure of a version must not fail on them.
 */
export function jsonText(value: unknown): string {
  return JSON.stringify(value).replace(UNSTORABLE_ESCAPE, '\\ufffd');
}

/** The same for a text column. */
export function storableText(text: string): string {
  return text.toWellFormed().replaceAll('\0', '\ufffd');
}

/** Opens and migrates. `where` is a folder (PGlite) or `{ url }`. */
export async function openDatabase(where: { dir: string } | { url: string }): Promise<Database> {
  const database = 'dir' in where ? await openPglite(where.dir) : openPostgres(where.url);
  try {
    await migrate(database.db);
  } catch (error) {
    await database.close();
    throw 'url' in where ? (unreachable(where.url, error) ?? error) : error;
  }
  return database;
}

const NO_CONNECTION = /^(?:ECONN\w+|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|ENOENT|EACCES)$/;
/** Postgres' own: wrong user or password, no such database, not allowed from here, starting or full. */
const REFUSED = /^(?:28\w{3}|3D000|57P0\d|53300)$/;

/** Null when it is another problem than getting in. The address is named without its password. */
function unreachable(url: string, error: unknown): KilnError | null {
  let cause = error;
  while (cause instanceof Error && !('code' in cause) && cause.cause !== undefined) cause = cause.cause;
  // Node tries several addresses, and says what each of them said.
  if (cause instanceof AggregateError && cause.errors.length > 0) cause = cause.errors[0];
  const { code = '', message = '' } = (cause ?? {}) as { code?: string; message?: string };
  if (!NO_CONNECTION.test(code) && !REFUSED.test(code) && !/timeout|terminated/i.test(message)) return null;
  const { host, pathname } = URL.parse(url) ?? { host: 'the given address', pathname: '' };
  return new KilnError(
    'UNAVAILABLE',
    `The database at ${host}${pathname} cannot be used: ${message || code}. Start it, or correct --database (KILN_DATABASE).`,
    { cause },
  );
}

async function migrate(db: Db): Promise<void> {
  const migrator = new Migrator({ db, provider: { getMigrations: async () => MIGRATIONS } });
  const error = await isMigrated(db).then(
    async (done) => (done ? undefined : (await migrator.migrateToLatest()).error),
    (cause: unknown) => cause,
  );
  if (error) throw new Error(`the database could not be migrated: ${error}`, { cause: error });
}

/**
 * Whether the migrations carried out are exactly ours. Two small queries spare later starts the migrator, which looks
 * through the whole catalogue several times (250 ms in PGlite); on any difference it is the one to act or to complain.
 */
async function isMigrated(db: Db): Promise<boolean> {
  const { rows: tables } = await sql<{ found: boolean }>`
    select to_regclass('kysely_migration') is not null as found`.execute(db);
  if (!tables[0]?.found) return false;
  const { rows } = await sql<{ name: string }>`select name from kysely_migration`.execute(db);
  const done = new Set(rows.map((row) => row.name));
  const ours = Object.keys(MIGRATIONS);
  return done.size === ours.length && ours.every((name) => done.has(name));
}

/**
 * Zeroing Postgres' own 128 MiB of buffers takes 90 ms of every start, and all of it is resident from then on, which
 * makes every child process dearer to start. What does not fit is in the system's page cache.
 */
const PGLITE_BUFFERS = ['-c', 'shared_buffers=32MB'];

/**
 * V8 would optimise what is hot in WebAssembly. For one function of Postgres, its parser, that takes 600 MB and over a
 * second of a processor, at every start; and the engine's statements are small, and parsed once (pglite-statements.ts).
 * Measured: a start peaks at 265 MB instead of 800, a rollback costs the same 18 ms of processor time; only queries that
 * look through 100,000s of rows are slower, by half. V8 reads these flags whenever it compiles a module, so here is early
 * enough.
 */
function compileSimply(): void {
  setFlagsFromString('--no-wasm-tier-up');
  setFlagsFromString('--no-wasm-dynamic-tiering');
}

async function openPglite(dir: string): Promise<Database> {
  compileSimply();
  const startParams = [...PGlite.defaultStartParams, ...PGLITE_BUFFERS];
  await placePrepared(dir);
  const pglite = await PGlite.create({ fs: new SyncedFiles(dir), startParams: withSync(startParams) });
  const prepared = withPreparedStatements(pglite);
  const db = new Kysely<Tables>({ dialect: new PGliteDialect({ pglite: prepared }) });
  const forBoss: Parameters<typeof fromPglite>[0] = {
    query: (text, values) => prepared.query(text, values),
    exec: (text) => pglite.exec(text),
    listen: (channel, on_payload) => pglite.listen(channel, on_payload),
  };
  return {
    kind: 'pglite',
    db,
    forBoss: { db: fromPglite(forBoss), backend: 'pglite' },
    listen: (channel, on_payload) => pglite.listen(channel, on_payload),
    reclaim: () => vacuum(db),
    close: async () => {
      if (!pglite.closed) await pglite.close();
    },
  };
}

/** One table after the other: everything else waits as long as one takes. */
async function vacuum(db: Db): Promise<void> {
  const { rows } = await sql<{ schemaname: string; tablename: string }>`
    select schemaname, tablename from pg_tables where schemaname in ('public', 'kiln_queue')`.execute(db);
  for (const { schemaname, tablename } of rows)
    await sql`vacuum ${sql.id(schemaname, tablename)}`.execute(db);
}

function openPostgres(url: string): Database {
  // int8 as number: our counters stay far below 2^53.
  const getTypeParser = ((oid: number, format: 'text') =>
    oid === 20 ? Number : pg.types.getTypeParser(oid, format)) as typeof pg.types.getTypeParser;
  const pool = new pg.Pool({
    connectionString: url,
    max: 10,
    types: { getTypeParser },
    application_name: 'kiln',
  });
  // An idle client that loses its server must not take the process down; the next query reports it.
  pool.on('error', () => {});
  const db = new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) });
  const listener = pgListener(url);
  return {
    kind: 'postgres',
    db,
    forBoss: { connectionString: url },
    listen: listener.listen,
    reclaim: async () => {},
    close: async () => {
      await listener.close();
      await db.destroy();
    },
  };
}

/** One dedicated connection for LISTEN, reconnected for ever with back-off; every reconnect counts as a notification. */
function pgListener(url: string) {
  const handlers = new Map<Channel, Set<(payload: string) => void>>();
  let client: pg.Client | null = null;
  /** While one is being made; whoever listens meanwhile is in `handlers`, and waits for it. */
  let connecting: Promise<void> | null = null;
  let closed = false;
  let retry: NodeJS.Timeout | null = null;

  function connect(): Promise<void> {
    connecting ??= connectOnce().finally(() => {
      connecting = null;
    });
    return connecting;
  }
  async function connectOnce(): Promise<void> {
    const next = new pg.Client({ connectionString: url, application_name: 'kiln-listen', keepAlive: true });
    next.on('notification', (m) => {
      for (const handler of handlers.get(m.channel as Channel) ?? []) handler(m.payload ?? '');
    });
    next.on('error', () => again(next));
    next.on('end', () => again(next));
    await next.connect();
    // Also those that came while it was being made.
    for (const [channel, set] of handlers) {
      await next.query(`listen ${channel}`);
      for (const handler of set) handler('');
    }
    if (closed) return void (await next.end());
    client = next;
  }
  function again(lost: pg.Client): void {
    if (closed || (client !== lost && client !== null) || retry) return;
    client = null;
    retry = setTimeout(() => {
      retry = null;
      connect().catch(() => again(lost));
    }, 500);
    retry.unref();
  }
  return {
    async listen(channel: Channel, handler: (payload: string) => void): Promise<() => Promise<void>> {
      const first = !handlers.has(channel);
      const set = handlers.get(channel) ?? new Set();
      set.add(handler);
      handlers.set(channel, set);
      if (client) {
        if (first) await client.query(`listen ${channel}`);
      } else if (!retry) await connect();
      return async () => {
        set.delete(handler);
      };
    },
    async close(): Promise<void> {
      closed = true;
      if (retry) clearTimeout(retry);
      await connecting?.catch(() => {});
      await client?.end().catch(() => {});
    },
  };
}

/** Sent when the transaction commits, not before. The payload is at most 8,000 bytes. */
export async function notify(trx: Conn, channel: Channel, payload: string): Promise<void> {
  await sql`select pg_notify(${channel}, ${payload})`.execute(trx);
}
