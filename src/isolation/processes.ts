import { readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { lockLimit, type Marks, readMarks, readProc } from './marks.ts';

/**
 * Processes of the host as /proc shows them, and which of them belong to a machine.
 *
 * A process belongs to a machine when it is its root, carries one of the machine's marks, was seen as a member
 * before, or shares parent, group or session with a member that lives now. So daemons are found too, which leave
 * the tree (`setsid`, double fork) and may drop the environment.
 */
export interface ProcessRow {
  pid: number;
  ppid: number;
  group: number;
  session: number;
  /** Start time in clock ticks: with the pid it names a process for good, although pids are reused. */
  started: string;
  /** Processor time of its own and of children it waited for. Milliseconds. */
  cpu_ms: number;
  /** Read when first asked for, which for most processes is never: relatives of a member need none. */
  marks(): Marks;
}
/** Living processes (no zombies) by pid. */
export type ProcessTable = ReadonlyMap<number, ProcessRow>;

export interface ProcessScanner {
  scan(): ProcessTable;
}

/** /proc counts in hundredths of a second on every Linux. */
const TICK_MS = 10;
const NO_MARKS: Marks = { name: null, lock_limit: null };

/** Reads /proc. Marks are read once per process: it gets them from its parent and does not change them. */
export function makeScanner(): ProcessScanner {
  const known = new Map<string, Marks>();
  function marksOf(pid: number, started: string): Marks {
    const key = `${pid}:${started}`;
    const marks = known.get(key) ?? readMarks(pid);
    if (marks !== undefined) known.set(key, marks);
    return marks ?? NO_MARKS;
  }
  return {
    scan() {
      const table = new Map<number, ProcessRow>();
      for (const name of readdirSync('/proc')) {
        const pid = Number(name);
        const row = pid > 0 ? readRow(pid) : null;
        if (row !== null) table.set(pid, { ...row, marks: () => marksOf(pid, row.started) });
      }
      for (const key of known.keys())
        if (table.get(Number.parseInt(key, 10))?.started !== key.slice(key.indexOf(':') + 1))
          known.delete(key);
      return table;
    },
  };
}

/** Null for a process that is gone or a zombie. Fields: proc_pid_stat(5); the name may hold blanks and brackets. */
function readRow(pid: number): Omit<ProcessRow, 'marks'> | null {
  const text = readProc(`/proc/${pid}/stat`);
  if (text === null) return null;
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  if (fields[0] === 'Z' || fields[0] === 'X') return null;
  return {
    pid,
    ppid: Number(fields[1]),
    group: Number(fields[2]),
    session: Number(fields[3]),
    started: fields[19] ?? '',
    cpu_ms: fields.slice(11, 15).reduce((ticks, field) => ticks + Number(field), 0) * TICK_MS,
  };
}

/** Threads of this user's processes, which the kernel's limit on tasks counts; it does not bind root: infinite. */
export function countTasks(): number {
  const uid = process.getuid?.();
  if (uid === 0) return Number.POSITIVE_INFINITY;
  let tasks = 0;
  for (const name of readdirSync('/proc')) {
    if (!(Number(name) > 0)) continue;
    const status = readProc(`/proc/${name}/status`) ?? '';
    if (Number(/^Uid:\s+(\d+)/m.exec(status)?.[1]) === uid)
      tasks += Number(/^Threads:\s+(\d+)/m.exec(status)?.[1] ?? 1);
  }
  return tasks;
}

export interface ProcessTree {
  /** The machine's living processes. */
  members(table: ProcessTable): ProcessRow[];
}

/** `root` is the pid of the outermost process, null when only marks are left to go by (after a crash). */
export function makeTree(name: string, root: number | null): ProcessTree {
  const lock_limit = lockLimit(name);
  let known = new Map<number, string>();
  return {
    members(table) {
      const members = new Map<number, ProcessRow>();
      for (const row of table.values())
        if (row.pid === root || known.get(row.pid) === row.started) members.set(row.pid, row);
      addRelatives(members, table);
      for (const row of table.values()) {
        if (members.has(row.pid)) continue;
        const marks = row.marks();
        if (marks.name === name || marks.lock_limit === lock_limit) members.set(row.pid, row);
      }
      addRelatives(members, table);
      members.delete(process.pid);
      known = new Map([...members.values()].map((row) => [row.pid, row.started]));
      return [...members.values()];
    },
  };
}

/** Every machine starts in a session of its own, so whoever shares one with a member was started by it. */
function addRelatives(members: Map<number, ProcessRow>, table: ProcessTable): void {
  const sessions = new Set<number>();
  const groups = new Set<number>();
  let before = 0;
  while (members.size !== before) {
    before = members.size;
    for (const row of members.values()) {
      sessions.add(row.session);
      groups.add(row.group);
    }
    const own = table.get(process.pid);
    if (own !== undefined) {
      sessions.delete(own.session);
      groups.delete(own.group);
    }
    for (const row of table.values())
      if (members.has(row.ppid) || groups.has(row.group) || sessions.has(row.session))
        members.set(row.pid, row);
  }
}

/** Sends a signal; false when there is no such process (or group, for a negative pid) any more. */
export function signal(pid: number, name: NodeJS.Signals): boolean {
  if (pid > 0 ? pid < 2 : pid > -2) return false;
  try {
    return process.kill(pid, name);
  } catch {
    return false;
  }
}

/**
 * One blow at some processes. `inits` are first processes of a pid namespace: the kernel kills all others with
 * them. The rest are stopped before being killed, group by group, which is atomic against fork.
 */
export function strike(rows: readonly ProcessRow[], inits: readonly number[]): void {
  for (const pid of inits) signal(pid, 'SIGKILL');
  const groups = new Set(rows.map((row) => row.group));
  const targets = [...[...groups].map((group) => -group), ...rows.map((row) => row.pid)];
  if (rows.length > 1) for (const target of targets) signal(target, 'SIGSTOP');
  for (const target of targets) signal(target, 'SIGKILL');
}

/** Kills every process of a tree and waits until none is left; false when some still live after `patience_ms`. */
export async function killTree(
  tree: ProcessTree,
  scanner: ProcessScanner,
  inits: (rows: ProcessRow[]) => number[],
  patience_ms = 10_000,
): Promise<boolean> {
  const give_up_at = performance.now() + patience_ms;
  for (let wait_ms = 2; ; wait_ms = Math.min(wait_ms * 2, 50)) {
    const rows = tree.members(scanner.scan());
    if (rows.length === 0) return true;
    strike(rows, inits(rows));
    if (performance.now() > give_up_at) return false;
    await sleep(wait_ms);
  }
}
