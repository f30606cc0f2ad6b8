import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

export interface CommandOptions {
  cwd: string;
  env: Record<string, string | undefined>;
  timeout_ms: number;
  signal?: AbortSignal;
  log?: (line: string) => void;
}

const KEPT_LINES = 15;

/** Runs a program to its end; rejects with its last words when it fails. Resolves to its stdout. */
export async function runCommand(file: string, args: readonly string[], o: CommandOptions): Promise<string> {
  o.signal?.throwIfAborted();
  const signals = [AbortSignal.timeout(o.timeout_ms), ...(o.signal ? [o.signal] : [])];
  const child = spawn(file, args, {
    ...{ cwd: o.cwd, env: o.env, stdio: ['ignore', 'pipe', 'pipe'], signal: AbortSignal.any(signals) },
  });
  const output: string[] = [];
  const last: string[] = [];
  createInterface({ input: child.stdout }).on('line', (line) => output.push(line));
  createInterface({ input: child.stderr }).on('line', (line) => {
    last.push(line);
    if (last.length > KEPT_LINES) last.shift();
    o.log?.(line);
  });
  const [code, name] = (await once(child, 'close').catch((error: unknown) => {
    o.signal?.throwIfAborted();
    throw new Error(`${file} did not run: ${error instanceof Error ? error.message : error}`);
  })) as [number | null, string | null];
  if (code === 0) return output.join('\n');
  throw new Error(`${file} failed (${name ?? `exit ${code}`}): ${last.join('\n').slice(-2000)}`);
}
