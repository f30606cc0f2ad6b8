/**
 * Threads for blocking file work. They start when needed, are kept for the next task (a start costs 50 ms, a whole
 * stat-only check of 20,000 files half of that), hold no process open and end after a while without work.
 */
import { availableParallelism } from 'node:os';
import { type MessagePort, type Transferable, Worker } from 'node:worker_threads';
import { type ErrorCode, KilnError } from '../domain/errors.ts';
import type { Extracted, ExtractTask } from './extract-thread.ts';
import type { Hashed } from './hash.ts';
import type { LaneResult, Lanes, LaneTask } from './lanes.ts';
import type { Slabs } from './slabs.ts';
import type { Survey, SurveyTask } from './survey-thread.ts';
import type { TarSummary, TarTask } from './tar-writer.ts';
import { TarTooLarge, TreeChanged, TreeUnreadable } from './tree.ts';

export type Task =
  | SurveyTask
  | { kind: 'stat'; root: string; paths: string[] }
  | { kind: 'hash'; root: string; paths: string[]; rows: Float64Array }
  | { kind: 'tar'; tar: TarTask; slabs: Slabs; port: MessagePort }
  | LaneTask
  | { kind: 'digest'; lanes: Lanes }
  | ExtractTask;

export interface TaskResults {
  survey: Survey;
  stat: Float64Array;
  hash: Hashed;
  tar: TarSummary;
  lane: LaneResult;
  digest: string;
  extract: Extracted;
}

export type TaskFault =
  | { type: 'kiln'; code: ErrorCode; message: string; details: Record<string, unknown> | undefined }
  | { type: 'unreadable'; path: string; reason: string }
  | { type: 'changed'; path: string }
  | { type: 'too_large'; size_bytes: number; max_bytes: number }
  | { type: 'output'; code: string | undefined; message: string }
  | { type: 'other'; message: string };

/** How many threads one short task should be spread over. */
export const SPREAD = Math.max(2, Math.min(4, availableParallelism()));

/**
 * Tasks at work at once, by kind. An extract waits for its input, which may come from a tar of this very process,
 * so those two must not compete for one allowance. A digest goes with lanes: they start in the same order.
 */
const AT_ONCE: Record<Task['kind'], number> = {
  survey: 8,
  stat: 8,
  hash: 8,
  tar: 4,
  lane: 4,
  digest: 4,
  extract: 64,
};
/** Lanes and a digest. */
const KEEP_IDLE = SPREAD + 1;
/** Who edits publishes every few minutes; starting the threads anew would be most of what a small snapshot takes. */
const KEEP_IDLE_MS = 10 * 60_000;

const idle: { worker: Worker; timer: NodeJS.Timeout }[] = [];
const running = perKind(() => 0);
const waiting = perKind((): (() => void)[] => []);

function perKind<T>(make: () => T): Record<Task['kind'], T> {
  const kinds = Object.keys(AT_ONCE).map((kind) => [kind, make()]);
  return Object.fromEntries(kinds) as Record<Task['kind'], T>;
}

/**
 * Runs one task in a thread. Rejects with the error the task threw. After `deadline_ms` the thread is ended and the
 * promise rejects with TreeUnreadable (a hostile ignore rule may take for ever).
 */
export async function runTask<K extends Task['kind']>(
  task: Extract<Task, { kind: K }>,
  transfer: Transferable[] = [],
  deadline_ms: number | null = null,
): Promise<TaskResults[K]> {
  const kind: Task['kind'] = task.kind;
  if (running[kind] >= AT_ONCE[kind]) await new Promise<void>((go) => waiting[kind].push(go));
  else running[kind]++;
  try {
    return (await perform(task, transfer, deadline_ms)) as TaskResults[K];
  } finally {
    const next = waiting[kind].shift();
    if (next) next();
    else running[kind]--;
  }
}

function perform(task: Task, transfer: Transferable[], deadline_ms: number | null): Promise<unknown> {
  const worker = takeWorker();
  return new Promise((resolve, reject) => {
    const timer =
      deadline_ms === null ? null : setTimeout(() => finish(tooSlow(task, deadline_ms)), deadline_ms);
    const onMessage = (answer: { value: unknown } | { fault: TaskFault }) => {
      if ('value' in answer) finish(null, answer.value);
      else finish(null, undefined, revive(answer.fault));
    };
    const onExit = (code: number) => finish(new Error(`a file thread ended (${code}) during "${task.kind}"`));
    /** `broken`: the thread cannot be used again. */
    const finish = (broken: Error | null, value?: unknown, error: Error | null = broken) => {
      if (timer) clearTimeout(timer);
      worker.off('message', onMessage).off('exit', onExit).off('error', finish);
      if (broken) void worker.terminate();
      else keepWorker(worker);
      if (error) reject(error);
      else resolve(value);
    };
    worker.on('message', onMessage).on('exit', onExit).on('error', finish);
    worker.postMessage(task, transfer);
  });
}

function takeWorker(): Worker {
  const kept = idle.pop();
  if (kept) {
    clearTimeout(kept.timer);
    kept.worker.removeAllListeners('exit').ref();
    return kept.worker;
  }
  // The compiled package has .js files; the specifier is not an import, so nothing rewrites it for us.
  const file = import.meta.url.endsWith('.ts') ? './thread.ts' : './thread.js';
  const worker = new Worker(new URL(file, import.meta.url));
  worker.on('error', () => {}); // a thread that breaks while idle is dropped by its exit
  return worker;
}

function keepWorker(worker: Worker): void {
  worker.unref();
  if (idle.length >= KEEP_IDLE) {
    void worker.terminate();
    return;
  }
  const drop = () => {
    const at = idle.findIndex((kept) => kept.worker === worker);
    if (at >= 0) idle.splice(at, 1);
    void worker.terminate();
  };
  idle.push({ worker, timer: setTimeout(drop, KEEP_IDLE_MS).unref() });
  worker.once('exit', drop);
}

function tooSlow(task: Task, deadline_ms: number): Error {
  return new TreeUnreadable('.', `could not be listed within ${deadline_ms / 1000} s (task "${task.kind}")`);
}

function revive(fault: TaskFault): Error {
  switch (fault.type) {
    case 'kiln':
      return new KilnError(fault.code, fault.message, { details: fault.details });
    case 'unreadable':
      return new TreeUnreadable(fault.path, fault.reason);
    case 'changed':
      return new TreeChanged(fault.path);
    case 'too_large':
      return new TarTooLarge(fault.size_bytes, fault.max_bytes);
    case 'output':
      return Object.assign(new Error(fault.message), { code: fault.code });
    case 'other':
      return new Error(fault.message);
  }
}
