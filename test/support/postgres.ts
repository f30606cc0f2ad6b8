/** A Postgres server of its own for a test: its cluster in a temporary folder, on a free loopback port. */
import { execFileSync, spawn } from 'node:child_process';
import { chownSync, existsSync, readdirSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';
import pg from 'pg';
import { tempDir } from './folders.ts';

export interface Postgres {
  /** URL of a fresh, empty database. */
  fresh(): Promise<string>;
  stop(): Promise<void>;
}

/** Null when no server is installed; the caller skips with the reason. */
export function postgresBin(): string | null {
  const root = '/usr/lib/postgresql';
  const versions = existsSync(root) ? readdirSync(root).sort((a, b) => Number(b) - Number(a)) : [];
  const found = versions
    .map((version) => path.join(root, version, 'bin'))
    .find((bin) => existsSync(path.join(bin, 'initdb')));
  return found ?? null;
}

export async function startPostgres(bin: string): Promise<Postgres> {
  const dir = await tempDir('postgres');
  const port = await freePort();
  // Postgres refuses to run as root; Debian's package makes a user for it.
  const as_root = process.getuid?.() === 0;
  const id = (flag: string) => Number(execFileSync('id', [flag, 'postgres'], { encoding: 'utf8' }));
  const who = as_root ? { uid: id('-u'), gid: id('-g') } : {};
  if (as_root) chownSync(dir, who.uid!, who.gid!);
  const data = path.join(dir, 'data');
  execFileSync(
    path.join(bin, 'initdb'),
    ['-D', data, '-U', 'kiln', '-A', 'trust', '-E', 'UTF8', '--no-sync'],
    { ...who, cwd: dir, stdio: 'ignore' },
  );
  const server = spawn(
    path.join(bin, 'postgres'),
    ['-D', data, '-p', String(port), '-h', '127.0.0.1', '-k', dir, '-c', 'max_connections=200'],
    { ...who, cwd: dir, stdio: 'ignore' },
  );
  const gone = new Promise<void>((resolve) => server.once('exit', () => resolve()));
  const url = (database: string) => `postgres://kiln@127.0.0.1:${port}/${database}`;
  await untilReady(url('postgres'));
  let made = 0;
  return {
    async fresh() {
      const name = `t${++made}`;
      await query(url('postgres'), `create database ${name}`);
      return url(name);
    },
    async stop() {
      server.kill('SIGINT');
      await gone;
      await rm(dir, { recursive: true, force: true });
    },
  };
}

async function query(url: string, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await client.query(sql);
  } finally {
    await client.end();
  }
}

async function untilReady(url: string): Promise<void> {
  for (let tries = 0; ; tries++) {
    try {
      return await query(url, 'select 1');
    } catch (error) {
      if (tries > 200) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as net.AddressInfo;
      server.close(() => resolve(port));
    });
  });
}
