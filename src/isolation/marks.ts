import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';

/**
 * How a process shows which machine it belongs to, whatever became of its parents:
 *
 * - two variables in the environment of the machine's first process, which name the machine;
 * - a resource limit that stands for the machine: the one on file locks, which the kernel has not looked at since
 *   Linux 2.4 but still hands down to every child. No daemon drops it, while `env -i` drops the variables.
 */
export const MACHINE_MARK = 'KILN_MACHINE';
export const DATA_MARK = 'KILN_DATA';

export interface Marks {
  /** `<data key>/<machine id>`, null when the environment does not say. */
  name: string | null;
  /** The limit on file locks as /proc prints it; 'unlimited' for processes of nobody. */
  lock_limit: string | null;
}

/** The mark of a machine as a limit: 59 bits of a digest, far from any value in use elsewhere. */
export function lockLimit(name: string): string {
  return (createHash('sha256').update(name).digest().readBigUInt64BE() >> 5n).toString();
}

/** Undefined while the process is just being replaced by exec: ask again. */
export function readMarks(pid: number): Marks | undefined {
  const environment = readProc(`/proc/${pid}/environ`);
  if (environment === '') return undefined;
  let machine: string | null = null;
  let data: string | null = null;
  for (const entry of environment?.split('\0') ?? []) {
    if (entry.startsWith(`${MACHINE_MARK}=`)) machine = entry.slice(MACHINE_MARK.length + 1);
    if (entry.startsWith(`${DATA_MARK}=`)) data = entry.slice(DATA_MARK.length + 1);
  }
  const limits = readProc(`/proc/${pid}/limits`) ?? '';
  return {
    name: machine !== null && data !== null ? `${data}/${machine}` : null,
    lock_limit: /^Max file locks\s+(\S+)/m.exec(limits)?.[1] ?? null,
  };
}

/** A file that the kernel writes, or null when the process is gone or is not ours to look at. Nothing below `root` or `cwd`. */
export function readProc(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null;
  }
}
