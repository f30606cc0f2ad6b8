/** A whole Kiln for a test: engine, edge and API on free ports, in a data folder of its own. */
import { type ChildProcess, spawn } from 'node:child_process';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { readConfig } from '../../src/config.ts';
import { type Hooks, startServer } from '../../src/server.ts';
import { Client } from './client.ts';
import { testConfig } from './config.ts';
import { type Flags, flagsFor, tempDir } from './folders.ts';

export interface Kiln extends Client {
  data_dir: string;
  close(): Promise<void>;
}

/** In this process; `flags` are those of `kiln up`. The data folder is removed at the end unless it was given. */
export async function startKiln(
  flags: Flags = {},
  data_dir?: string,
  hooks: Pick<Hooks, 'wrapObjects'> = {},
): Promise<Kiln> {
  const dir = data_dir ?? (await tempDir('data'));
  const server = await startServer(testConfig(readConfig({}, flagsFor(dir, flags))), {
    host_env: process.env as Record<string, string>,
    ...hooks,
  });
  const client = new Client(server.api_url, server.edge_url, server.key);
  return Object.assign(client, {
    data_dir: dir,
    close: async () => {
      await server.close();
      if (data_dir === undefined) await rm(dir, { recursive: true, force: true });
    },
  });
}

export interface KilnProcess extends Client {
  child: ChildProcess;
  /** SIGKILL, and wait until it is gone. */
  kill(): Promise<void>;
  /** SIGTERM, and wait until it is gone. */
  stop(): Promise<number | null>;
}

/** As a process of its own. */
export async function startKilnProcess(data_dir: string, flags: Flags = {}): Promise<KilnProcess> {
  const child = spawn(
    process.execPath,
    [path.join(import.meta.dirname, 'engine-process.ts'), JSON.stringify(flagsFor(data_dir, flags))],
    { stdio: ['pipe', 'pipe', 'inherit'] },
  );
  const gone = new Promise<number | null>((resolve) => child.once('exit', (code) => resolve(code)));
  const first = Promise.withResolvers<string>();
  createInterface({ input: child.stdout! }).once('line', first.resolve);
  void gone.then((code) => first.reject(new Error(`the engine ended with ${code} before it was ready`)));
  const ready = JSON.parse(await first.promise) as { api_url: string; edge_url: string; key: string };
  return Object.assign(new Client(ready.api_url, ready.edge_url, ready.key), {
    child,
    async kill() {
      child.kill('SIGKILL');
      await gone;
    },
    async stop() {
      child.kill('SIGTERM');
      return gone;
    },
  });
}
