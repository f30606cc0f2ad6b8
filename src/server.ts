/** One engine process: takes the data folder, starts what needs time, and has the engine put together meanwhile. */
import path from 'node:path';
import type { Config } from './config.ts';
import type { Log } from './engine/context.ts';
import { engineLog } from './engine/engine-log.ts';
import { type Folders, lockFolder, makeFolders } from './engine/folders.ts';
import { KnownSecrets } from './engine/known-secrets.ts';
import { type Machines, openMachines } from './machines.ts';
import type { Database } from './store/db.ts';
import type { ObjectStore } from './store/objects/port.ts';

export interface Server {
  api_url: string;
  edge_url: string;
  /** The key made on first start, also in `<data>/api.key`. */
  key: string;
  isolation: string;
  warnings: string[];
  /** Resolves once everything has ended. */
  closed: Promise<void>;
  close(): Promise<void>;
}

export interface Hooks {
  say?: Log;
  /** For tests that make storage fail. */
  wrapObjects?: (store: ObjectStore) => ObjectStore;
  /** The environment that toolchains and registry settings of machines are taken from. */
  host_env: Record<string, string>;
}

/** Everything opened so far, closed in the opposite order; each step gets its chance even if an earlier one fails. */
export class Closers {
  readonly #steps: (() => unknown)[] = [];
  add(step: () => unknown): void {
    this.#steps.push(step);
  }
  /** For what opens while other things do: it is waited for and closed even if those have failed in the meantime. */
  addOpening<T>(opening: Promise<T>, close: (opened: T) => unknown): Promise<T> {
    const closing = opening.then(
      (opened) => () => close(opened),
      () => () => undefined,
    );
    this.add(async () => (await closing)());
    return opening;
  }
  async run(say: Log): Promise<void> {
    for (const step of this.#steps.splice(0).reverse())
      try {
        await step();
      } catch (error) {
        say('warn', 'a part did not close cleanly', { error: String(error) });
      }
  }
}

/** Rejects with a KilnError that says what is in the way (folder in use, port taken, driver that does not work). */
export async function startServer(config: Config, hooks: Hooks): Promise<Server> {
  const started_ms = performance.now();
  const closers = new Closers();
  const left_open: string[] = [];
  const folders = await makeFolders(config.data_dir, (dir) => left_open.push(dir));
  const lock = lockFolder(config.data_dir, apiUrl(config));
  closers.add(() => lock.release());
  const secrets = new KnownSecrets();
  const file = path.join(folders.data, 'logs', 'engine.log');
  const redact = (text: string) => secrets.redact(text);
  const say = engineLog({ file, level: config.log_level, redact, also: hooks.say });
  for (const dir of left_open)
    say('warn', 'other users of this machine may look into a folder: run `chmod 700` on it as its owner', {
      dir,
    });
  try {
    const parts = { config, hooks, folders, say, secrets, closers };
    const { machines, database } = await openParts(config, hooks, folders, say, closers);
    const after_ms: Record<string, number> = {};
    const reached = (phase: string) => {
      after_ms[phase] = Math.round(performance.now() - started_ms);
    };
    // Whether they fail is for whoever needs them.
    machines.then(() => reached('machines')).catch(() => undefined);
    database.then(() => reached('database')).catch(() => undefined);
    const { openEngine } = await import('./wiring.ts');
    reached('loaded');
    const server = await openEngine({ ...parts, machines, database, reached });
    reached('ready');
    const { api_url: api, edge_url: edge, isolation } = server;
    say('info', 'ready', { api, edge, isolation, after_ms });
    lock.announce(server.api_url);
    const closed = Promise.withResolvers<void>();
    let closing: Promise<void> | null = null;
    const close = () => {
      closing ??= closers.run(say).then(closed.resolve);
      return closing;
    };
    return { ...server, closed: closed.promise, close };
  } catch (error) {
    await closers.run(say);
    throw error;
  }
}

/**
 * What has to be waited for is begun before the rest of this process is loaded. Machines come first: they start
 * programs, and that is dearer the more memory this process has.
 */
async function openParts(
  config: Config,
  hooks: Hooks,
  folders: Folders,
  say: Log,
  closers: Closers,
): Promise<{ machines: Promise<Machines>; database: Promise<Database> }> {
  const machines = closers.addOpening(
    openMachines(config, { folders, host_env: hooks.host_env, say }),
    ({ builder }) => builder.close?.(),
  );
  const { openDatabase } = await import('./store/db.ts');
  const { database_url } = config;
  const database = closers.addOpening(
    openDatabase(database_url ? { url: database_url } : { dir: folders.database }),
    (opened) => opened.close(),
  );
  return { machines, database };
}

function apiUrl(config: Config): string {
  return `http://${config.api.host.includes(':') ? `[${config.api.host}]` : config.api.host}:${config.api.port}`;
}
