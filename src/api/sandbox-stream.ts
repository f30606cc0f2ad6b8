/** What happens in a sandbox as streams: lines of commands, changes of files. (Its events are in event.ts.) */
import { setTimeout as sleep } from 'node:timers/promises';
import { shownPath } from '../source/paths.ts';
import { changesBetween, type Look, lookAt } from '../source/watch.ts';
import { followLog, type LogLine, readLog } from '../store/logs.ts';
import { type AnyCall, data, handle, type Mounted } from './call.ts';
import * as contract from './contract/sandbox-stream.ts';
import { workspaceOf } from './file.ts';
import { findSandbox } from './find.ts';
import { takeWatcher } from './places.ts';
import { eventStream, type Send } from './sse.ts';
import { workspacePath } from './workspace-path.ts';

const LINES = 100;
/** Between two looks at a watched workspace; one that takes long is looked at less often. */
const LOOK_MS = 400;
const REST_PER_LOOK = 10;
const MAX_ENTRIES = 200_000;

const frame = ({ t, s, l }: LogLine) => ({
  event: 'log_line',
  data: { type: 'log_line', ts: t, stream: s, line: l },
});

async function isDestroyed(call: AnyCall, sandbox_id: string): Promise<boolean> {
  return (await findSandbox(call, sandbox_id)).state === 'destroyed';
}

const destroyed = { event: 'done', data: { type: 'done', result: { state: 'destroyed' } } };

async function follow(
  call: AnyCall,
  sandbox_id: string,
  tail: number,
  send: Send,
  signal: AbortSignal,
): Promise<void> {
  const path = call.deps.engine.sandboxLogPath(sandbox_id);
  const { lines, next } = await readLog(path, { tail });
  for (const line of lines) await send(frame(line));
  const finished = () => isDestroyed(call, sandbox_id);
  for await (const line of followLog(path, { after: next, signal, finished })) await send(frame(line));
  if (!signal.aborted) await send(destroyed);
}

interface Watched {
  sandbox_id: string;
  root: string;
  /** Relative to the root; '.' for all of it. */
  below: string;
  first: Look;
}

async function watch(call: AnyCall, of: Watched, send: Send, signal: AbortSignal): Promise<void> {
  const is_wanted = (path: string) =>
    of.below === '.' || path === of.below || path.startsWith(`${of.below}/`);
  let before = of.first;
  let took_ms = 0;
  while (!signal.aborted) {
    await sleep(LOOK_MS + took_ms * REST_PER_LOOK, undefined, { signal }).catch(() => {});
    if (signal.aborted) return;
    if (await isDestroyed(call, of.sandbox_id)) return send(destroyed);
    const started = performance.now();
    const now = await lookAt(of.root, MAX_ENTRIES);
    took_ms = performance.now() - started;
    for (const { type, path, is_dir, size_bytes } of changesBetween(before, now)) {
      if (!is_wanted(path)) continue;
      const told = { type, event: type, path: shownPath(path), is_dir, size_bytes };
      await send({ event: type, data: told });
    }
    before = now;
  }
}

export const sandboxStreamHandlers: Mounted[] = [
  handle(contract.getSandboxLogs, async (call) => {
    const { id } = await findSandbox(call, call.params.id);
    const path = call.deps.engine.sandboxLogPath(id);
    const { lines } = await readLog(path, { tail: call.query.lines ?? LINES });
    const text = lines.map(({ l }) => l);
    return data({ sandbox_id: id, lines: text, logs: text.map((line) => `${line}\n`).join('') });
  }),
  handle(contract.streamSandboxLogs, async (call) => {
    const { id } = await findSandbox(call, call.params.id);
    return eventStream(call, (send, signal) => follow(call, id, call.query.lines ?? LINES, send, signal));
  }),
  handle(contract.watchFiles, async (call) => {
    const below = workspacePath(call.query.path ?? '.', 'path');
    const root = await workspaceOf(call, call.params.id);
    const leave = takeWatcher(call);
    try {
      // Looked at before the answer begins: whatever changes after it is told.
      const first = await lookAt(root, MAX_ENTRIES);
      const of = { sandbox_id: call.params.id, root, below, first };
      return eventStream(call, (send, signal) => watch(call, of, send, signal), leave);
    } catch (error) {
      leave();
      throw error;
    }
  }),
];
