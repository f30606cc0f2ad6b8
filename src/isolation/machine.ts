import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readdirSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { countPause, type DiskWatch, watchDisk } from './disk.ts';
import type { ExitReason, Machine, MachineExit, MachineSpec } from './driver.ts';
import type { Host, Prepared } from './host.ts';
import { readProc } from './marks.ts';
import { CHANNEL_FD, NODE_INSIDE, type Outlet, RELEASE_SCRIPT } from './network/outlet.ts';
import { type Output, openOutput } from './output.ts';
import { killTree, makeTree, type ProcessRow, type ProcessTree, signal, strike } from './processes.ts';
import { checkSpec, removeTree } from './scratch.ts';
import { listeningPorts, ownsPort } from './sockets.ts';
import { watchMachine } from './watchdog.ts';

/**
 * The life of one machine, the same for every driver that runs processes on this host:
 *
 *   start ──► running ──► main command ended ──► leftovers killed ──► output drained ──► folder removed ──► exited
 *                │  limit exceeded: everything killed at once
 *                └─ stop(): TERM to all; those that go on have until the grace ends, then KILL
 *
 * A driver only says how to launch (`Launch`); finding, watching and killing the processes is done here.
 */
export interface Launch {
  file: string;
  args: string[];
  /** The launcher's environment; must carry the marks. */
  env: Record<string, string>;
  cwd: string;
  /** Read by the launcher from fd 4, where arguments are not visible to other users. */
  input: string | null;
  /**
   * The launcher makes a pid namespace: the outermost process is a monitor and its child the namespace's init.
   * Both belong to the driver: not counted, not signalled by stop(); killing the init kills the whole machine.
   */
  pid_namespace: boolean;
  /** For a machine with a network of its own: its way out. */
  outlet?: Outlet | null;
}

/** A launcher needs about 10 ms; one that hangs (a dead network mount) is given up. */
const START_MS = 30_000;
const DRAIN_MS = 2000;
const O_CLOEXEC = 0o2000000;
const STARTED_SCRIPT = 'printf . >&3 && exec nice -n "$1" /bin/sh -c "$2" 3>&-';
const LISTEN_SCRIPT = `env -i NODE_CHANNEL_FD=${CHANNEL_FD} "$3" -e "$4" >&2 && exec ${CHANNEL_FD}>&- && ${RELEASE_SCRIPT} && ${STARTED_SCRIPT}`;

/**
 * The end of every launcher's command line: tells through fd 3 that the machine is set up, then becomes the
 * command, at a lower priority than the engine and the launcher. With an outlet, after its socket was handed over and
 * with the environment that was held back till then (network/outlet.ts); should that fail, the machine does not start.
 * The priority is not a courtesy: a fork bomb of equal priority takes so many shares of the processors that the watchdog
 * does not get to run (measured: 98 s).
 */
export function shellArguments(
  spec: Pick<MachineSpec, 'command' | 'kind'>,
  outlet: Outlet | null = null,
): string[] {
  const [script, ...listen] = outlet ? [LISTEN_SCRIPT, NODE_INSIDE, outlet.listen_code] : [STARTED_SCRIPT];
  return ['/bin/sh', '-c', script!, 'sh', spec.kind === 'instance' ? '5' : '15', spec.command, ...listen];
}

/** Checks the spec, prepares the host, and launches; whatever fails on the way leaves nothing behind. */
export async function startMachine(
  host: Host,
  spec: MachineSpec,
  toLaunch: (prepared: Prepared) => Launch | Promise<Launch>,
): Promise<Machine> {
  await checkSpec(spec);
  if (host.running.has(spec.id)) throw new Error(`machine ${spec.id} is running already`);
  // From here on a sweep leaves its folder and processes alone.
  host.running.add(spec.id);
  const private_dir = join(host.work_dir, spec.id);
  let run: Run | undefined;
  let launch: Launch | undefined;
  try {
    launch = await toLaunch(await host.prepare(spec, private_dir));
    run = new Run(host, spec, private_dir, launch);
    return await run.start(launch);
  } catch (error) {
    run?.endWatch();
    await run?.killAll();
    await launch?.outlet?.close();
    await removeTree(private_dir);
    host.running.delete(spec.id);
    throw error;
  }
}

class Run {
  readonly host: Host;
  readonly spec: MachineSpec;
  readonly private_dir: string;
  readonly pid_namespace: boolean;
  readonly outlet: Outlet | null;
  readonly watch: ReturnType<typeof watchMachine>;
  tree: ProcessTree;
  last_seen: ProcessRow[] = [];
  /** Sampled: what the last quarter of a second took is missing, and what nobody waited for. */
  cpu_ms = 0;
  child: ChildProcess | undefined;
  output: Output | undefined;
  disk: DiskWatch | undefined;
  timer: NodeJS.Timeout | undefined;
  reason: ExitReason = 'exited';
  started_at = performance.now();
  /** When a requested stop turns into KILL; null while none was requested. */
  kill_at: number | null = null;
  stopping: Promise<void> | undefined;

  constructor(host: Host, spec: MachineSpec, private_dir: string, launch: Launch) {
    this.host = host;
    this.spec = spec;
    this.private_dir = private_dir;
    this.pid_namespace = launch.pid_namespace;
    this.outlet = launch.outlet ?? null;
    this.tree = makeTree(`${host.data_key}/${spec.id}`, null);
    this.watch = watchMachine(
      spec.limits,
      (table) => {
        this.last_seen = this.tree.members(table);
        const cpu_ms = this.last_seen.reduce((sum, row) => sum + row.cpu_ms, 0);
        this.cpu_ms = Math.max(this.cpu_ms, cpu_ms);
        return this.own(this.last_seen);
      },
      (reason) => {
        // Before anything that takes time: another look at a fork bomb would find it many times larger.
        strike(this.last_seen, this.inits(this.last_seen));
        this.fail(reason);
      },
    );
  }

  async start(launch: Launch): Promise<Machine> {
    const { spec } = this;
    const disk = watchDisk({
      dirs: [spec.workspace_dir, join(this.private_dir, 'tmp'), join(this.private_dir, 'home')],
      limit_bytes: spec.limits.disk_bytes,
      count_every_ms: countPause(spec.kind),
      pids: () => this.pids(),
      on_full: () => this.fail('out_of_disk'),
    });
    const output = openOutput(this.private_dir, spec, () => this.fail('log_limit'));
    // Each starts a program. Where one fails the other is waited for: it has to be ended as well.
    await Promise.allSettled([disk, output]);
    this.disk = await disk;
    this.output = await output;
    this.started_at = performance.now();
    const child = this.spawn(launch);
    const ended = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>;
    await this.ready(child, ended);
    this.host.sampler.add(this.watch);
    if (spec.limits.time_ms !== null)
      this.timer = setTimeout(() => this.fail('timed_out'), Math.min(spec.limits.time_ms, 2 ** 31 - 1));
    const exited = ended.then(([code, name]) => this.finish(code, name));
    return {
      id: spec.id,
      pid: child.pid!,
      exited,
      stop: async (grace_ms) => {
        this.stop(grace_ms);
        return await exited;
      },
      listening: async () => listeningPorts(this.pids()),
      ownsPort: async (port) => ownsPort(this.pids(), port),
      usage: async () => this.watch.measure(this.host.scanner.scan()),
    };
  }

  spawn(launch: Launch): ChildProcess {
    const nothing = openSync('/dev/null', 'r');
    const input = launch.input === null ? 'ignore' : 'pipe';
    const stdio: ('ignore' | 'pipe' | 'ipc' | number)[] = [
      'ignore',
      ...this.output!.child_fds,
      'pipe',
      input,
    ];
    if (this.outlet !== null) stdio[CHANNEL_FD] = 'ipc';
    // Files that whoever started the engine left open would go down to the machine; 'ignore' does not close them.
    for (const fd of inheritedFiles()) {
      while (stdio.length < fd) stdio.push('ignore');
      if (stdio[fd] === undefined || stdio[fd] === 'ignore') stdio[fd] = nothing;
    }
    try {
      const { args, cwd, env } = launch;
      this.child = spawn(launch.file, args, { cwd, env, detached: true, stdio });
    } finally {
      this.output!.started();
      closeSync(nothing);
    }
    if (this.child.pid !== undefined)
      this.tree = makeTree(`${this.host.data_key}/${this.spec.id}`, this.child.pid);
    this.outlet?.attach(this.child);
    const pipe = this.child.stdio[4] as Writable | null | undefined;
    if (launch.input !== null) pipe?.on('error', () => undefined).end(launch.input);
    return this.child;
  }

  /** Waits for the sign of `shellArguments`; rejects when the launcher ended without it. */
  async ready(child: ChildProcess, ended: Promise<unknown>): Promise<void> {
    const pipe = child.stdio[3] as Readable;
    const timer = setTimeout(() => void this.killAll(), START_MS);
    pipe.on('error', () => undefined);
    ended.catch(() => undefined);
    const sign = await Promise.race([
      once(pipe, 'data').then(() => 'ready' as const),
      once(pipe, 'end').then(() => 'ended' as const),
      once(child, 'error').then(([error]) => error as Error),
    ]).catch((error: unknown) => error as Error);
    clearTimeout(timer);
    pipe.destroy();
    if (sign === 'ready') return;
    if (sign === 'ended') await ended;
    await this.output!.drained(DRAIN_MS);
    const why = sign instanceof Error ? sign.message : this.output!.stderrTail();
    throw new Error(`machine ${this.spec.id} could not be started: ${why || 'the launcher ended silently'}`);
  }

  /** The launcher's own processes: monitor and init of the namespace. */
  supervisors(rows: ProcessRow[]): number[] {
    if (!this.pid_namespace) return [];
    const root = this.child?.pid;
    return rows.filter((row) => row.pid === root || row.ppid === root).map((row) => row.pid);
  }

  own(rows: ProcessRow[]): number[] {
    const supervisors = new Set(this.supervisors(rows));
    return rows.map((row) => row.pid).filter((pid) => !supervisors.has(pid));
  }

  pids(): number[] {
    return this.own(this.tree.members(this.host.scanner.scan()));
  }

  /** A limit was exceeded: the first reason counts, everything dies at once. */
  fail(reason: ExitReason): void {
    if (this.reason === 'exited') this.reason = reason;
    this.kill_at = 0;
    this.stopping ??= this.end();
  }

  stop(grace_ms: number): void {
    if (this.reason === 'exited' && this.child?.exitCode === null && this.child.signalCode === null)
      this.reason = 'killed';
    this.kill_at = Math.min(this.kill_at ?? Number.POSITIVE_INFINITY, performance.now() + grace_ms);
    this.stopping ??= this.end();
  }

  /** TERM to everybody at once, as service managers do; KILL to those left at `kill_at`, which may come closer. */
  async end(): Promise<void> {
    const root = this.child?.pid ?? 0;
    if (this.kill_at! > performance.now()) {
      // The monitor ends with the main command and takes the rest along: hold it while they shut down.
      if (this.pid_namespace) signal(root, 'SIGSTOP');
      for (const pid of this.pids()) signal(pid, 'SIGTERM');
      for (let wait_ms = 5; this.kill_at! > performance.now(); wait_ms = Math.min(wait_ms * 2, 50)) {
        if (this.pids().length === 0) break;
        await sleep(Math.min(wait_ms, Math.max(1, this.kill_at! - performance.now())));
      }
      if (this.pids().length === 0) {
        // Nothing but the launcher is left: let it report the command's own exit status.
        if (this.pid_namespace) signal(root, 'SIGCONT');
        return;
      }
    }
    await this.killAll();
  }

  /** Init first, then the monitor, which would otherwise report an end that is not complete yet. */
  inits(rows: ProcessRow[]): number[] {
    const root = this.child?.pid;
    return this.supervisors(rows).sort((a, b) => Number(a === root) - Number(b === root));
  }

  killAll(): Promise<boolean> {
    return killTree(this.tree, this.host.scanner, (rows) => this.inits(rows));
  }

  async finish(code: number | null, name: NodeJS.Signals | null): Promise<MachineExit> {
    const duration_ms = Math.round(performance.now() - this.started_at);
    await this.stopping;
    await this.killAll();
    await this.output!.drained(DRAIN_MS);
    this.endWatch();
    // Counting takes a second per 200,000 files, which only a build's report is worth.
    const disk_bytes = this.spec.kind === 'build' ? await this.disk!.peak() : null;
    await this.outlet?.close();
    await removeTree(this.private_dir);
    this.host.running.delete(this.spec.id);
    const status = readStatus(code, name);
    // The file size limit of the launcher ends a writer with SIGXFSZ.
    if (this.reason === 'exited' && status.signal === 'SIGXFSZ') this.reason = 'out_of_disk';
    const { memory_bytes, processes } = this.watch.peak;
    return {
      reason: this.reason,
      ...status,
      peak_memory_bytes: memory_bytes,
      peak_processes: processes,
      ...{ duration_ms, disk_bytes, cpu_ms: this.cpu_ms },
      hosts: this.outlet?.contacts() ?? [],
    };
  }

  endWatch(): void {
    clearTimeout(this.timer);
    this.disk?.stop();
    this.host.sampler.remove(this.watch);
  }
}

/** Open files of the engine that exec would not close: Node closes all of its own on exec. */
function inheritedFiles(): number[] {
  return readdirSync('/proc/self/fdinfo')
    .map(Number)
    .filter((fd) => {
      const flags = /^flags:\s+(\d+)/m.exec(readProc(`/proc/self/fdinfo/${fd}`) ?? '')?.[1];
      return flags !== undefined && (Number.parseInt(flags, 8) & O_CLOEXEC) === 0;
    });
}

const SIGNALS = new Map(Object.entries(constants.signals).map(([name, number]) => [number, name]));

/** Shells and bubblewrap report a signal as 128 + its number; so that all drivers agree, that is read back. */
export function readStatus(
  code: number | null,
  name: string | null,
): { exit_code: number | null; signal: string | null } {
  const from_code = code !== null && code > 128 ? (SIGNALS.get(code - 128) ?? null) : null;
  const signal_name = name ?? from_code;
  return { exit_code: signal_name === null ? code : null, signal: signal_name };
}
