import { watch } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { type LogLine, previousPath, readStart } from './line.ts';

const WINDOW_BYTES = 1024 * 1024;
const TAIL_WINDOW_BYTES = 64 * 1024;
const POLL_MS = 500;

interface Segment {
  handle: FileHandle;
  /** Position of the first line, of the end, and the offset of the first line in the file. */
  at: number;
  end: number;
  header_bytes: number;
}

/**
 * Lines of a log from position `after` on (default: the oldest kept), or the last `tail` ones. `next` is the
 * position to go on from. A log that is not there has no lines; a half-written last line is left for next time.
 */
export async function readLog(
  path: string,
  o: { tail?: number; after?: number } = {},
): Promise<{ lines: LogLine[]; next: number }> {
  const segments = await openSegments(path);
  try {
    const end = segments.at(-1)?.end ?? 0;
    const first = Math.min(Math.max(o.after ?? 0, segments[0]?.at ?? 0), end);
    if (o.tail === undefined) return await readFrom(segments, first, false);
    for (let window = TAIL_WINDOW_BYTES; ; window *= 4) {
      const from = Math.max(first, end - window);
      const read = await readFrom(segments, from, from > first);
      if (read.lines.length >= o.tail || from === first)
        return { lines: o.tail > 0 ? read.lines.slice(-o.tail) : [], next: read.next };
    }
  } finally {
    await Promise.all(segments.map((segment) => segment.handle.close()));
  }
}

/**
 * Lines of a log as they come, from position `after` on. Ends once `finished()` says that nobody writes any more
 * and everything written was passed on, or when `signal` aborts.
 */
export async function* followLog(
  path: string,
  o: { after?: number; signal: AbortSignal; finished: () => boolean | Promise<boolean> },
): AsyncGenerator<LogLine> {
  let next = o.after ?? 0;
  const bell = watchLog(path, o.signal);
  try {
    while (!o.signal.aborted) {
      bell.reset();
      // Asked before reading: what was written before the end is then certainly read.
      const finished = await o.finished();
      const read = await readLog(path, { after: next });
      next = read.next;
      for (const line of read.lines) {
        if (o.signal.aborted) return;
        yield line;
      }
      if (finished) return;
      if (read.lines.length === 0) await bell.rung();
    }
  } finally {
    bell.close();
  }
}

/** Rings on a change, at least every 500 ms: notifications may be missing (the folder is not there, or remote). */
function watchLog(path: string, signal: AbortSignal) {
  let ring: () => void = () => undefined;
  let bell = Promise.resolve();
  let watcher: ReturnType<typeof watch> | undefined;
  function reset(): void {
    bell = new Promise((resolve) => {
      ring = resolve;
    });
    try {
      watcher ??= watch(dirname(path), (_, name) => {
        if (name === null || name === basename(path)) ring();
      }).on('error', () => undefined);
    } catch {
      // The folder is not there yet: the poll does it until then.
    }
  }
  const onAbort = () => ring();
  signal.addEventListener('abort', onAbort);
  return {
    reset,
    async rung(): Promise<void> {
      const timer = setTimeout(() => ring(), POLL_MS);
      if (signal.aborted) ring();
      await bell;
      clearTimeout(timer);
    },
    close() {
      watcher?.close();
      signal.removeEventListener('abort', onAbort);
    },
  };
}

/** The older file and the current one, in order. Opened newest first, so that a rotation in between loses nothing. */
async function openSegments(path: string): Promise<Segment[]> {
  const segments: Segment[] = [];
  for (const file of [path, previousPath(path)]) {
    const handle = await open(file, 'r').catch(() => null);
    if (handle === null) continue;
    const { at, header_bytes } = await readStart(handle);
    const end = at + (await handle.stat()).size - header_bytes;
    if (segments.some((other) => other.at <= at)) await handle.close();
    else segments.unshift({ handle, at, end, header_bytes });
  }
  return segments;
}

/** Whole lines from a position to the end; `inside` says that the position may lie within a line, which is passed over. */
async function readFrom(
  segments: readonly Segment[],
  from: number,
  inside: boolean,
): Promise<{ lines: LogLine[]; next: number }> {
  const lines: LogLine[] = [];
  let next = from;
  for (const segment of segments) {
    if (segment.end <= from) continue;
    let skip = inside && from > segment.at;
    let rest = Buffer.alloc(0);
    for (let at = Math.max(from, segment.at); at < segment.end; ) {
      const size = Math.min(WINDOW_BYTES, segment.end - at);
      const offset = segment.header_bytes + at - segment.at;
      const { bytesRead, buffer } = await segment.handle.read(Buffer.alloc(size), 0, size, offset);
      if (bytesRead === 0) break;
      at += bytesRead;
      rest = Buffer.concat([rest, buffer.subarray(0, bytesRead)]);
      for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10)) {
        const line = skip ? null : parseLine(rest.toString('utf8', 0, end));
        if (line !== null) lines.push(line);
        skip = false;
        rest = rest.subarray(end + 1);
      }
      next = at - rest.length;
    }
  }
  return { lines, next };
}

function parseLine(text: string): LogLine | null {
  try {
    const { t, s, l } = JSON.parse(text) as LogLine;
    return typeof t === 'string' && typeof l === 'string' ? { t, s, l } : null;
  } catch {
    // Cut off by a crash.
    return null;
  }
}
