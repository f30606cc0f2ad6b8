import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, realpath, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { DriverOptions, IsolationDriver, Limits, Machine, MachineExit, MachineSpec } from '../driver.ts';
import { readMarks } from '../marks.ts';

const MIB = 1024 * 1024;
/** Generous: a case that tests a limit sets its own. */
export const LIMITS: Limits = {
  time_ms: 15_000,
  memory_bytes: 1024 * MIB,
  processes: 200,
  disk_bytes: 256 * MIB,
  log_bytes: 16 * MIB,
  on_log_limit: 'kill',
};

/** In the engine's environment of every contract run; must never be seen by a machine. */
export const ENGINE_SECRET = 'engine-secret-7f3a';

/** The engine's own npm settings: a machine gets the first line, without the credentials. */
const NPMRC = `registry=https://u:p@npm.example/\n//npm.example/:_authToken=${ENGINE_SECRET}\nemail=x\n`;

export type RunOptions = Partial<Omit<MachineSpec, 'limits'>> & { limits?: Partial<Limits> };

export interface Bench {
  driver: IsolationDriver;
  options: DriverOptions;
  /** How much slower than the host its machines are; stretches limits on time. */
  patience: number;
  /** Holds `data` (the data folder) and whatever a case puts beside it. */
  dir: string;
  newWorkspace(): Promise<string>;
  start(command: string, o?: RunOptions): Promise<Started>;
  /** Starts and waits for the end. */
  run(command: string, o?: RunOptions): Promise<Started & { exit: MachineExit }>;
  close(): Promise<void>;
}

export interface Started {
  machine: Machine;
  workspace_dir: string;
  /** Output so far. */
  stdout(): string;
  stderr(): string;
}

let count = 0;
export function newId(): string {
  return `mch_${process.pid}x${count++}`;
}

/** A data folder of its own and a driver on it, with an engine environment that has something to hide. */
export async function openBench(make: (o: DriverOptions) => IsolationDriver, patience = 1): Promise<Bench> {
  const dir = await realpath(await mkdtemp(join(tmpdir(), 'kiln-isolation-')));
  const options: DriverOptions = {
    data_dir: join(dir, 'data'),
    work_dir: join(dir, 'data', 'machines'),
    host_env: {
      PATH: process.env.PATH,
      HOME: join(dir, 'home'),
      KILN_VAULT_KEY: ENGINE_SECRET,
      HTTPS_PROXY: '',
      PIP_INDEX_URL: `https://user:${ENGINE_SECRET}@pypi.example/simple`,
    },
  };
  await mkdir(options.work_dir, { recursive: true });
  await mkdir(join(dir, 'home'));
  await writeFile(join(dir, 'home/.npmrc'), NPMRC);
  const driver = make(options);

  async function newWorkspace(): Promise<string> {
    const path = join(options.data_dir, 'sandboxes', newId());
    await mkdir(path, { recursive: true });
    return path;
  }

  async function start(command: string, o: RunOptions = {}): Promise<Started> {
    const workspace_dir = o.workspace_dir ?? (await newWorkspace());
    const chunks = { stdout: [] as Buffer[], stderr: [] as Buffer[] };
    const machine = await driver.start({
      id: newId(),
      kind: 'build',
      cwd: '.',
      env: {},
      on_output: (stream, chunk) => chunks[stream].push(chunk),
      ...o,
      workspace_dir,
      command,
      limits: { ...LIMITS, time_ms: LIMITS.time_ms! * patience, ...o.limits },
    });
    return {
      machine,
      workspace_dir,
      stdout: () => Buffer.concat(chunks.stdout).toString('utf8'),
      stderr: () => Buffer.concat(chunks.stderr).toString('utf8'),
    };
  }

  return {
    driver,
    options,
    patience,
    dir,
    newWorkspace,
    start,
    async run(command, o) {
      const started = await start(command, o);
      return { ...started, exit: await started.machine.exited };
    },
    close: () => rm(dir, { recursive: true, force: true }),
  };
}

/** A number of seconds to sleep that nobody else uses: by it a case finds its processes again. */
export function newMark(): string {
  return `${100_000 + count++}.${process.pid}`;
}

/** Living processes whose command line holds a text. */
export function processesWith(text: string): number[] {
  const found: number[] = [];
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name) || Number(name) === process.pid) continue;
    try {
      const state = readFileSync(`/proc/${name}/stat`, 'utf8').split(') ').at(-1)?.[0];
      if (state !== 'Z' && readFileSync(`/proc/${name}/cmdline`, 'utf8').includes(text))
        found.push(Number(name));
    } catch {
      // Gone.
    }
  }
  return found;
}

/** Processes of this host that belong to a machine by the mark in their environment. */
export function markedProcesses(id: string): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => pid > 0 && readMarks(pid)?.name?.endsWith(`/${id}`));
}

/** Waits until a condition holds, failing after a minute: machines may be emulated. */
export async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  const give_up_at = performance.now() + 60_000;
  while (!(await condition())) {
    assert.ok(performance.now() < give_up_at, `timed out waiting until ${what}`);
    await sleep(10);
  }
}
