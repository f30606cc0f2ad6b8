import { rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/**
 * The control group of one VM, which the jailer makes and nobody but us removes. It holds even if the VMM itself is
 * taken over: memory, tasks and processor time of the process, not of the guest.
 */
export interface CgroupLayout {
  version: 1 | 2;
  /** Where each controller is mounted; with version 2 all in one place. */
  dirs: { memory: string; pids: string; cpu: string };
}

export interface CgroupLimits {
  memory_bytes: number;
  tasks: number;
  vcpus: number;
}

const CONTROLLERS = ['memory', 'pids', 'cpu'] as const;
const CPU_PERIOD_US = 100_000;

/** From the text of /proc/mounts; null when the host has no such controllers. */
export function readCgroupLayout(mounts: string): CgroupLayout | null {
  const rows = mounts.split('\n').map((line) => line.split(' '));
  const version_1 = CONTROLLERS.map(
    (name) =>
      rows.find(([, , type, options]) => type === 'cgroup' && options?.split(',').includes(name))?.[1],
  );
  const [memory, pids, cpu] = version_1;
  if (memory !== undefined && pids !== undefined && cpu !== undefined)
    return { version: 1, dirs: { memory, pids, cpu } };
  // A host that still has version 1 for some controllers has none of them in version 2.
  const unified = rows.find(([, , type]) => type === 'cgroup2')?.[1];
  if (unified === undefined || version_1.some((dir) => dir !== undefined)) return null;
  return { version: 2, dirs: { memory: unified, pids: unified, cpu: unified } };
}

/** `file=value` for the jailer's `--cgroup`. */
export function cgroupSettings(version: 1 | 2, limits: CgroupLimits): string[] {
  const memory = Math.ceil(limits.memory_bytes);
  const quota = limits.vcpus * CPU_PERIOD_US;
  if (version === 2)
    return [`memory.max=${memory}`, `pids.max=${limits.tasks}`, `cpu.max=${quota} ${CPU_PERIOD_US}`];
  return [
    `memory.limit_in_bytes=${memory}`,
    `pids.max=${limits.tasks}`,
    ...[`cpu.cfs_period_us=${CPU_PERIOD_US}`, `cpu.cfs_quota_us=${quota}`],
  ];
}

/** Where the jailer puts the group of a VM. */
export function cgroupDirs(layout: CgroupLayout, parent: string, id: string): string[] {
  return [...new Set(CONTROLLERS.map((name) => join(layout.dirs[name], parent, id)))];
}

/** A group is busy until its last process is reaped; after two seconds it is left for the next sweep. */
export async function removeCgroups(dirs: readonly string[]): Promise<void> {
  for (const dir of dirs)
    for (let attempt = 0; attempt < 40; attempt++) {
      const code = await rmdir(dir).then(
        () => null,
        (error: NodeJS.ErrnoException) => error.code,
      );
      if (code !== 'EBUSY') break;
      await sleep(50);
    }
}
