import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ExitReason, MachineExit } from '../driver.ts';
import type { ImageBuildSpec } from '../image-builder.ts';
import { readStatus } from '../machine.ts';
import { readProc } from '../marks.ts';
import { makeGate } from '../output.ts';
import { makeScanner, type ProcessRow, type ProcessTable, signal, strike } from '../processes.ts';
import { makePrivateDir, removeTree } from '../scratch.ts';
import { readUntrustedFile } from '../untrusted-file.ts';
import { makeSampler, watchMachine } from '../watchdog.ts';
import { type BuildFiles, checkImageBuild, scopeHost, scopeOf } from './argv.ts';
import { refuseFrontend } from './frontend.ts';

/** A client that was told to end passes it on to BuildKit; one that does not is killed, which ends its session. */
const CLIENT_GRACE_MS = 1500;
/** For the steps of a build to die with its session. */
const STEPS_GRACE_MS = 2500;
const MOST_HOSTS_BYTES = 64 * 1024;

export interface BuildClient {
  file: string;
  args: (files: BuildFiles) => string[];
  /** The client's whole environment; HOME is added. */
  env: Record<string, string>;
}

/**
 * Runs a build's client: output to the log, secrets as files that only it can read, all limits. The steps run in
 * BuildKit's own containers; on this host they are found by a host name of theirs (argv.ts), counted and, when the
 * build is to end, killed. That takes root; otherwise BuildKit ends them when the client's session is gone.
 */
export async function runBuild(
  work_dir: string,
  spec: ImageBuildSpec,
  client: BuildClient,
): Promise<MachineExit> {
  await checkImageBuild(spec);
  if (!/^[A-Za-z0-9_-]{1,64}$/.test(spec.id))
    throw new Error(`build id ${JSON.stringify(spec.id)} is not a plain name`);
  const refused = await refuseFrontend(spec, { network_is_held: false });
  if (refused !== null) return refused;
  const private_dir = join(work_dir, spec.id);
  try {
    await makePrivateDir(private_dir, []);
    const files = { secrets: await writeSecrets(private_dir, spec.secrets), scope: scopeOf(spec) };
    return await supervise(spec, client, files, private_dir);
  } finally {
    await removeTree(private_dir);
  }
}

async function writeSecrets(dir: string, secrets: Record<string, string>): Promise<Record<string, string>> {
  await mkdir(join(dir, 'secrets'), { mode: 0o700 });
  const files: Record<string, string> = {};
  for (const [index, [name, value]] of Object.entries(secrets).entries()) {
    files[name] = join(dir, 'secrets', String(index));
    await writeFile(files[name], value, { mode: 0o600 });
  }
  return files;
}

async function supervise(
  spec: ImageBuildSpec,
  client: BuildClient,
  files: BuildFiles,
  private_dir: string,
): Promise<MachineExit> {
  const scanner = makeScanner();
  const steps = stepFinder(scopeHost(files.scope));
  let reason: ExitReason = 'exited';
  let child: ChildProcess | undefined;
  let ending: Promise<void> | undefined;
  const end = (why: ExitReason) => {
    if (reason === 'exited') reason = why;
    ending ??= endBuild(child, () => steps(scanner.scan()));
  };
  const watch = watchMachine(
    spec.limits,
    (table) => steps(table).map((row) => row.pid),
    (why) => {
      const rows = steps(scanner.scan());
      strike(rows, inits(rows));
      end(why);
    },
  );
  const gate = makeGate(spec, () => end('log_limit'));
  const started_at = performance.now();
  spec.signal.throwIfAborted();
  child = spawn(client.file, client.args(files), {
    ...{ cwd: '/', env: { ...client.env, HOME: join(private_dir, 'home') }, detached: true },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  child.stdout!.on('data', (chunk: Buffer) => gate('stdout', chunk));
  child.stderr!.on('data', (chunk: Buffer) => gate('stderr', chunk));
  const closed = once(child, 'close') as Promise<[number | null, string | null]>;
  const sampler = makeSampler(scanner);
  sampler.add(watch);
  const timer = setTimeout(() => end('timed_out'), Math.min(spec.limits.time_ms, 2 ** 31 - 1));
  const onAbort = () => end('killed');
  spec.signal.addEventListener('abort', onAbort);
  try {
    const [code, name] = await closed;
    await ending;
    return {
      reason,
      ...readStatus(code, name),
      peak_memory_bytes: watch.peak.memory_bytes,
      peak_processes: watch.peak.processes,
      duration_ms: Math.round(performance.now() - started_at),
    };
  } finally {
    clearTimeout(timer);
    spec.signal.removeEventListener('abort', onAbort);
    sampler.remove(watch);
  }
}

/** The client first, politely; then whatever steps BuildKit has not ended by itself. */
async function endBuild(child: ChildProcess | undefined, steps: () => ProcessRow[]): Promise<void> {
  const over = () => !child || child.exitCode !== null || child.signalCode !== null;
  if (child?.pid) signal(-child.pid, 'SIGTERM');
  for (const until_ms = performance.now() + CLIENT_GRACE_MS; !over() && performance.now() < until_ms; )
    await sleep(20);
  if (child?.pid && !over()) signal(-child.pid, 'SIGKILL');
  for (const until_ms = performance.now() + STEPS_GRACE_MS; performance.now() < until_ms; await sleep(100)) {
    const rows = steps();
    if (rows.length === 0) return;
    if (performance.now() > until_ms - STEPS_GRACE_MS + 1000) strike(rows, inits(rows));
  }
}

/** First processes of their pid namespaces: with them the kernel kills all others. */
function inits(rows: readonly ProcessRow[]): number[] {
  const pids = new Set(rows.map((row) => row.pid));
  return rows.filter((row) => !pids.has(row.ppid)).map((row) => row.pid);
}

/** A step may have put anything there, with a root of its own. */
function hostsOf(pid: number): string {
  return readUntrustedFile(join('/proc', String(pid), 'root/etc/hosts'), MOST_HOSTS_BYTES) ?? '';
}

/** Processes in containers of a BuildKit whose hosts file has this name. */
function stepFinder(host: string): (table: ProcessTable) => ProcessRow[] {
  const known = new Map<string, boolean>();
  const isStep = ({ pid, started }: ProcessRow): boolean => {
    const key = `${pid}:${started}`;
    let mine = known.get(key);
    if (mine === undefined) {
      const in_buildkit = readProc(`/proc/${pid}/cgroup`)?.includes('buildkit') ?? false;
      mine = in_buildkit && hostsOf(pid).includes(host);
      // A container's first process becomes the command a moment after it is there: ask again until it is.
      if (mine || !in_buildkit) known.set(key, mine);
    }
    return mine;
  };
  return (table) => [...table.values()].filter(isStep);
}
