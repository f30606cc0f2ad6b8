/** The thread side of threads.ts: one task at a time, blocking calls welcome. */
import { parentPort } from 'node:worker_threads';
import { KilnError } from '../domain/errors.ts';
import { extractInThread } from './extract-thread.ts';
import { hashPaths } from './hash.ts';
import { digestLanes, OutputFailed, writeInLane } from './lanes.ts';
import { slabSender } from './slabs.ts';
import { statPaths } from './stat.ts';
import { surveyInThread } from './survey-thread.ts';
import { writeTar } from './tar-writer.ts';
import type { Task, TaskFault } from './threads.ts';
import { TarTooLarge, TreeChanged, TreeUnreadable } from './tree.ts';

async function run(task: Task): Promise<unknown> {
  switch (task.kind) {
    case 'survey':
      return surveyInThread(task);
    case 'stat':
      return statPaths(task.root, task.paths);
    case 'hash':
      return hashPaths(task.root, task.paths, task.rows);
    case 'digest':
      return digestLanes(task.lanes);
    case 'lane':
      return writeInLane(task);
    case 'extract':
      return extractInThread(task);
    case 'tar': {
      const whole = { from: 0, to: task.tar.entries.length };
      const summary = writeTar(task.tar, whole, slabSender(task.slabs, task.port));
      task.port.postMessage('end');
      return summary;
    }
  }
}

/** Errors lose their class between threads; this keeps what the caller needs to tell them apart. */
function describe(error: unknown): TaskFault {
  if (error instanceof KilnError) {
    return { type: 'kiln', code: error.code, message: error.message, details: error.details };
  }
  if (error instanceof TreeUnreadable) return { type: 'unreadable', path: error.path, reason: error.reason };
  if (error instanceof TreeChanged) return { type: 'changed', path: error.path };
  if (error instanceof TarTooLarge) {
    return { type: 'too_large', size_bytes: error.size_bytes, max_bytes: error.max_bytes };
  }
  if (error instanceof OutputFailed) {
    return { type: 'output', code: (error.cause as NodeJS.ErrnoException).code, message: error.message };
  }
  return { type: 'other', message: error instanceof Error ? (error.stack ?? error.message) : String(error) };
}

parentPort!.on('message', (task: Task) => {
  run(task).then(
    (value) => parentPort!.postMessage({ value }),
    (error) => parentPort!.postMessage({ fault: describe(error) }),
  );
});
