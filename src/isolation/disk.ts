import { execFile } from 'node:child_process';
import { readdirSync, readlinkSync, statfsSync, statSync } from 'node:fs';
import type { MachineSpec } from './driver.ts';

/**
 * Keeps the growth of some folders under a limit.
 *
 * A full count (`du`) costs about a second per 200,000 files, so it runs rarely: at most 1/20 of the time, and not
 * more often than `count_every_ms`. In between the free space of the file system, which costs nothing to ask, tells
 * when to count at once.
 */
export interface DiskWatch {
  stop(): void;
}

const CHECK_MS = 500;
const COUNT_AT_LEAST_EVERY_MS = 30_000;
/** A build writes all the time and is soon over. */
const COUNT_BUILD_EVERY_MS = 1000;
/** An app runs for days: a dozen of them counted every second kept a core busy with starting `du`. */
const COUNT_APP_EVERY_MS = 20_000;
const COUNT_TIMEOUT_MS = 30_000;

interface Count {
  bytes: number;
  /** Folders that could not be read: their content is missing from `bytes`. */
  incomplete: boolean;
  took_ms: number;
}

export function countPause(kind: MachineSpec['kind']): number {
  return kind === 'instance' ? COUNT_APP_EVERY_MS : COUNT_BUILD_EVERY_MS;
}

/**
 * Starts to watch; resolves once the state before is known, so call it before the machine runs. `pids` gives the
 * machine's processes: files they hold open but have unlinked, and memory files, count as well.
 */
export async function watchDisk(o: {
  dirs: string[];
  limit_bytes: number;
  count_every_ms: number;
  pids: () => number[];
  on_full: () => void;
}): Promise<DiskWatch> {
  if (!Number.isFinite(o.limit_bytes)) return { stop() {} };
  const before = await countBytes(o.dirs);
  const free_before = freeBytes(o.dirs[0]!);
  let last = { ...before, at: performance.now(), free: free_before, growth: 0 };
  let busy = false;

  async function check(): Promise<void> {
    const free = freeBytes(o.dirs[0]!);
    const since_ms = performance.now() - last.at;
    const suspicious = last.free - free > o.limit_bytes - last.growth;
    const pause_ms = suspicious ? last.took_ms * 5 : Math.max(o.count_every_ms, last.took_ms * 20);
    if (since_ms < Math.min(pause_ms, COUNT_AT_LEAST_EVERY_MS)) return;
    const now = await countBytes(o.dirs);
    const growth = now.bytes - before.bytes + unlinkedBytes(o.pids());
    last = { ...now, at: performance.now(), free, growth };
    const hidden = now.incomplete && free_before - free > o.limit_bytes;
    if (growth > o.limit_bytes || hidden) o.on_full();
  }

  const timer = setInterval(() => {
    if (busy) return;
    busy = true;
    void check()
      .catch(() => undefined)
      .finally(() => {
        busy = false;
      });
  }, CHECK_MS);
  return {
    stop() {
      clearInterval(timer);
    },
  };
}

/** Allocated bytes below some folders, each hard link once, other file systems left out. */
export function countBytes(dirs: readonly string[]): Promise<Count> {
  const started = performance.now();
  return new Promise((resolve) => {
    execFile(
      'du',
      ['-skx', '--', ...dirs],
      { timeout: COUNT_TIMEOUT_MS, maxBuffer: 1 << 20, env: { PATH: '/usr/bin:/bin', LC_ALL: 'C' } },
      (_, stdout, stderr) => {
        // Exits with 1 when files vanish while it counts; the totals are good all the same.
        let bytes = 0;
        for (const line of stdout.split('\n')) bytes += Number.parseInt(line, 10) * 1024 || 0;
        const incomplete = /permission denied|cannot read/i.test(stderr);
        resolve({ bytes, incomplete, took_ms: performance.now() - started });
      },
    );
  });
}

function freeBytes(dir: string): number {
  try {
    const fs = statfsSync(dir);
    return fs.bfree * fs.bsize;
  } catch {
    return 0;
  }
}

/** Bytes of files without a name (unlinked, memfd) that processes keep open. */
function unlinkedBytes(pids: readonly number[]): number {
  const seen = new Map<string, number>();
  for (const pid of pids) {
    try {
      for (const name of readdirSync(`/proc/${pid}/fd`)) {
        const path = `/proc/${pid}/fd/${name}`;
        if (!readlinkSync(path).endsWith(' (deleted)')) continue;
        const info = statSync(path);
        if (info.isFile()) seen.set(`${info.dev}:${info.ino}`, info.blocks * 512);
      }
    } catch {
      // The process or the file is gone.
    }
  }
  let bytes = 0;
  for (const size of seen.values()) bytes += size;
  return bytes;
}
