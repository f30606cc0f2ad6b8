import { readdirSync } from 'node:fs';
import { readProc } from '../marks.ts';

/** The control group of a container as this host's kernel shows it: exact, and read in microseconds. */
export interface Cgroup {
  /** Processes as the host numbers them, the container's init included; empty once the container is gone. */
  pids(): number[];
  /** Processor time so far; null when it cannot be read. Milliseconds. */
  cpuMs(): number | null;
  /** How many processes the kernel killed because memory ran out. */
  memoryKills(): number;
}

const ROOT = '/sys/fs/cgroup';

/** Of the container with this init, both hierarchies: version 1 has a tree per controller, version 2 one for all. */
export function openCgroup(init_pid: number): Cgroup {
  const paths = parseCgroup(readProc(`/proc/${init_pid}/cgroup`) ?? '');
  const v1 = paths.memory !== undefined;
  const dir = (controller: string) =>
    v1 ? `${ROOT}/${controller}${paths[controller] ?? '/none'}` : `${ROOT}${paths[''] ?? '/none'}`;
  const number = (text: string | null, pattern: RegExp) =>
    Number(pattern.exec(text ?? '')?.[1] ?? Number.NaN);
  return {
    pids: () => processesBelow(dir('memory')),
    cpuMs() {
      const value = v1
        ? number(readProc(`${dir('cpuacct')}/cpuacct.usage`), /^(\d+)/) / 1e6
        : number(readProc(`${dir('')}/cpu.stat`), /^usage_usec (\d+)/m) / 1e3;
      return Number.isNaN(value) ? null : Math.round(value);
    },
    memoryKills() {
      const file = v1 ? `${dir('memory')}/memory.oom_control` : `${dir('')}/memory.events`;
      return number(readProc(file), /^oom_kill (\d+)/m) || 0;
    },
  };
}

/** `/proc/<pid>/cgroup` as controller → path; version 2 has the empty controller. */
export function parseCgroup(text: string): Record<string, string> {
  const paths: Record<string, string> = {};
  for (const line of text.split('\n')) {
    const match = /^\d+:([^:]*):(\/.*)$/.exec(line);
    // The root group holds everybody: a container that is not in a group of its own is not there any more.
    if (match && match[2] !== '/') for (const name of match[1]!.split(',')) paths[name] = match[2]!;
  }
  return paths;
}

/** Containers may make groups of their own below theirs (a build in a container does). */
function processesBelow(dir: string, depth = 3): number[] {
  const text = readProc(`${dir}/cgroup.procs`);
  if (text === null) return [];
  const pids = text.split('\n').filter(Boolean).map(Number);
  if (depth === 0) return pids;
  try {
    for (const entry of readdirSync(dir, { withFileTypes: true }))
      if (entry.isDirectory()) pids.push(...processesBelow(`${dir}/${entry.name}`, depth - 1));
  } catch {
    // The group is gone.
  }
  return pids;
}
