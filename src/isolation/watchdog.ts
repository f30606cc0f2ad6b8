import type { ExitReason, Limits } from './driver.ts';
import { residentBytes } from './memory.ts';
import type { ProcessScanner, ProcessTable } from './processes.ts';

/**
 * Samples memory and process count of running machines. One scan of /proc serves all machines of a driver.
 *
 * Every 250 ms, the first time 30 ms after a start, and every 20 ms while a machine grows so fast that it would
 * pass a limit within four samples. Otherwise a scan may take at most a tenth of the time: on hosts with very many
 * processes the period grows.
 */
const PERIOD_MS = 250;
const FIRST_MS = 30;
const URGENT_MS = 20;

export interface Watched {
  /** True when the next sample should come soon. */
  sample(table: ProcessTable): boolean;
}

export interface Sampler {
  add(watched: Watched): void;
  remove(watched: Watched): void;
}

export function makeSampler(scanner: ProcessScanner): Sampler {
  const all = new Set<Watched>();
  let timer: NodeJS.Timeout | undefined;
  let due_at = Number.POSITIVE_INFINITY;

  function schedule(delay_ms: number): void {
    const at = performance.now() + delay_ms;
    if (at >= due_at) return;
    clearTimeout(timer);
    due_at = at;
    timer = setTimeout(tick, delay_ms);
  }

  function tick(): void {
    due_at = Number.POSITIVE_INFINITY;
    if (all.size === 0) return;
    const started = performance.now();
    const table = scanner.scan();
    let urgent = false;
    for (const watched of [...all]) urgent = watched.sample(table) || urgent;
    const took_ms = performance.now() - started;
    schedule(urgent ? URGENT_MS : Math.max(PERIOD_MS, took_ms * 10));
  }

  return {
    add(watched) {
      all.add(watched);
      schedule(FIRST_MS);
    },
    remove(watched) {
      all.delete(watched);
      if (all.size > 0) return;
      clearTimeout(timer);
      due_at = Number.POSITIVE_INFINITY;
    },
  };
}

export interface Usage {
  memory_bytes: number;
  processes: number;
}

/** Judges one machine's samples and remembers the peaks. `pids` picks its own processes out of a scan. */
export function watchMachine(
  limits: Limits,
  pids: (table: ProcessTable) => number[],
  on_exceeded: (reason: ExitReason) => void,
): Watched & { peak: Usage; measure(table: ProcessTable): Usage } {
  const peak: Usage = { memory_bytes: 0, processes: 0 };
  let before: Usage = { ...peak };
  function measure(table: ProcessTable): Usage {
    const own = pids(table);
    // A bomb has thousands of processes; over the count limit nobody asks for their memory any more.
    const counted = own.length > limits.processes ? [] : own;
    const now = { memory_bytes: residentBytes(counted, limits.memory_bytes / 2), processes: own.length };
    peak.memory_bytes = Math.max(peak.memory_bytes, now.memory_bytes);
    peak.processes = Math.max(peak.processes, now.processes);
    return now;
  }
  return {
    peak,
    measure,
    sample(table) {
      const now = measure(table);
      if (now.processes > limits.processes) on_exceeded('too_many_processes');
      else if (now.memory_bytes > limits.memory_bytes) on_exceeded('out_of_memory');
      const urgent =
        heads(before.processes, now.processes, limits.processes) ||
        heads(before.memory_bytes, now.memory_bytes, limits.memory_bytes);
      before = now;
      return urgent;
    },
  };
}

/** Growing so that it passes the limit within four more such steps? */
function heads(before: number, now: number, limit: number): boolean {
  return now > before && now + (now - before) * 4 > limit;
}
