import { accessSync, constants, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Where the system keeps the small programs drivers launch through; the operator's PATH comes last. */
const SYSTEM_PATH = '/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin';

/** Absolute path of a program, or null when it is not installed. */
export function findProgram(name: string, search_path = ''): string | null {
  for (const dir of `${SYSTEM_PATH}:${search_path}`.split(':')) {
    if (!dir.startsWith('/')) continue;
    try {
      accessSync(join(dir, name), constants.X_OK);
      return join(dir, name);
    } catch {
      // Not in this folder.
    }
  }
  return null;
}

/**
 * `prlimit …` in front of a command: no core dumps, no single file over the disk limit, the machine's mark
 * (marks.ts), and, for users that the kernel binds by it (not root), a ceiling on tasks far above the watchdog's
 * own limit on processes. Empty when prlimit is not installed: the watchdog alone then holds the limits.
 */
export function limitArguments(o: {
  prlimit: string | null;
  limits: { disk_bytes: number; processes: number };
  user_tasks: number;
  lock_limit: string;
}): string[] {
  if (o.prlimit === null) return [];
  const args = [o.prlimit, '--core=0', `--locks=${o.lock_limit}`];
  const file_bytes = Math.min(Math.ceil(o.limits.disk_bytes), hardLimit('Max file size'));
  if (Number.isFinite(file_bytes)) args.push(`--fsize=${file_bytes}`);
  // The limit counts threads of all the user's processes, on the host as well: a Node process has about 11.
  const tasks = Math.min(o.user_tasks + o.limits.processes * 16 + 256, hardLimit('Max processes'));
  if (Number.isFinite(tasks)) args.push(`--nproc=${tasks}`);
  return [...args, '--'];
}

/** The engine's own hard limit, which only root can raise. Infinity when there is none. */
function hardLimit(name: string): number {
  const line = readFileSync('/proc/self/limits', 'utf8')
    .split('\n')
    .find((text) => text.startsWith(name));
  const hard = line?.slice(26).trim().split(/\s+/)[1];
  return hard === undefined || hard === 'unlimited' ? Number.POSITIVE_INFINITY : Number(hard);
}
