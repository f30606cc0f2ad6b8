/** Which engine a command talks to, and with which key: flags over environment over the data folder. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { folderHolder } from '../engine/folders.ts';
import { CliError, EXIT } from './exit.ts';

export interface Connection {
  /** Without `/api/v1` and without a slash at the end. */
  api_url: string;
  key: string;
  /** Found through the data folder, so the engine runs (or ran) on this folder. */
  local: boolean;
  data_dir: string;
}

export interface ConnectionInput {
  api: string | null;
  key: string | null;
  data_dir: string;
  interrupted: AbortSignal;
}

/** On its first start an engine takes the folder before it has made the key. */
const KEY_WAIT_MS = 15_000;

/** Rejects with exit code 6 when no engine runs, 2 when there is no key. */
export async function findConnection(input: ConnectionInput): Promise<Connection> {
  const { data_dir } = input;
  if (input.api !== null) {
    const url = parseUrl(input.api);
    // The key of the local engine must not be sent to somebody else's host.
    const key = input.key ?? (isLoopback(url) ? await readKey(data_dir) : null);
    if (key === null) throw noKey(`There is no key for ${url.origin}.`);
    return {
      api_url: `${url.origin}${url.pathname.replace(/\/(api\/v1\/?)?$/, '')}`,
      key,
      local: false,
      data_dir,
    };
  }
  const holder = folderHolder(data_dir);
  if (holder === null)
    throw new CliError(EXIT.unreachable, 'NO_ENGINE', `No engine runs on the data folder ${data_dir}.`, {
      next_step: 'Start it with `kiln up`, or name another with --data, or with --api and --key.',
    });
  const key = input.key ?? (await waitForKey(input));
  if (key === null) throw noKey(`The engine on ${data_dir} has no readable key file (${data_dir}/api.key).`);
  return { api_url: reachable(holder.api), key, local: true, data_dir };
}

function noKey(message: string): CliError {
  return new CliError(EXIT.input, 'NO_KEY', message, { next_step: 'Give it with --key or KILN_KEY.' });
}

async function waitForKey(input: ConnectionInput): Promise<string | null> {
  const until_ms = performance.now() + KEY_WAIT_MS;
  for (;;) {
    const key = await readKey(input.data_dir);
    if (key !== null || performance.now() > until_ms || folderHolder(input.data_dir) === null) return key;
    await sleep(100, undefined, { signal: input.interrupted });
  }
}

async function readKey(data_dir: string): Promise<string | null> {
  try {
    return (await readFile(path.join(data_dir, 'api.key'), 'utf8')).trim() || null;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw noKey(
      `The key file ${data_dir}/api.key cannot be read (${(error as NodeJS.ErrnoException).code}).`,
    );
  }
}

function parseUrl(text: string): URL {
  try {
    const url = new URL(text);
    if (url.protocol === 'http:' || url.protocol === 'https:') return url;
  } catch {
    // Told below.
  }
  throw new CliError(
    EXIT.input,
    'BAD_INPUT',
    `--api must be a URL such as http://127.0.0.1:7070, not "${text}".`,
  );
}

function isLoopback(url: URL): boolean {
  return /^(127\.\d+\.\d+\.\d+|localhost|\[::1\])$/.test(url.hostname);
}

/** An engine that listens on every address is reached on loopback. */
function reachable(api: string): string {
  return api.replace('//0.0.0.0:', '//127.0.0.1:').replace('//[::]:', '//[::1]:');
}
