import { type FileHandle, mkdir, open, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import { makeRedactor, type Redactor, redactText } from '../../domain/redact.ts';
import { type LogLine, type LogStream, previousPath, readStart, startLine } from './line.ts';

export interface LogWriter {
  write(stream: LogStream, chunk: Buffer): void;
  /** One line of the engine's own. */
  note(line: string): void;
  /** The last lines, at most 200, oldest first. */
  tail(n: number): string[];
  /** Bytes accepted so far, including what an earlier writer left in the file. */
  readonly bytes: number;
  /** Writes what is left. Never rejects. */
  close(): Promise<void>;
}

export interface LogOptions {
  /** Of all files together. Bytes. */
  max_bytes: number;
  secrets: readonly string[];
  on_full: 'stop' | 'rotate';
  /** Called at the first disk error, and at the first one after the disk took lines again. */
  on_error?: (error: Error) => void;
  now?: () => Date;
  /** Nothing is written before it resolves: an earlier writer of the same log is closing. */
  after?: Promise<void> | undefined;
}

const MAX_LINE_CHARS = 8 * 1024;
const CUT_MARK = ' …[cut]';
const TAIL_LINES = 200;
/** Lines waiting for a slow disk; more are dropped. Bytes. */
const MAX_WAITING_BYTES = 8 * 1024 * 1024;

/**
 * Opens a log for appending. A log is a side channel (I12): writing never throws and never waits, what the disk
 * cannot take is dropped. Secrets are redacted by value before anything is kept. Disk errors show up in `on_error`, and
 * as a line that says what is missing once the disk takes lines again. The folder is made when it is missing.
 */
export function openLog(path: string, o: LogOptions): LogWriter {
  const now = o.now ?? (() => new Date());
  const file = appendTo(path, o, now);
  const recent: string[] = [];
  const splitters = new Map<LogStream, Splitter>();

  function add(stream: LogStream, text: string): void {
    recent.push(text);
    if (recent.length > TAIL_LINES) recent.shift();
    file.append({ t: now().toISOString(), s: stream, l: text });
  }

  return {
    write(stream, chunk) {
      let splitter = splitters.get(stream);
      if (splitter === undefined) {
        splitter = makeSplitter(makeRedactor(o.secrets), (line) => add(stream, line));
        splitters.set(stream, splitter);
      }
      splitter.push(chunk);
    },
    note: (line) => add('kiln', cut(redactText(line, o.secrets))),
    tail: (n) => (n <= 0 ? [] : recent.slice(-n)),
    get bytes() {
      return file.bytes();
    },
    async close() {
      for (const splitter of splitters.values()) splitter.end();
      splitters.clear();
      await file.close();
    },
  };
}

interface Splitter {
  push(chunk: Buffer): void;
  end(): void;
}

/** Lines of a redacted stream; of a long one only the first 8 KiB are kept, so that no line needs much memory. */
function makeSplitter(redactor: Redactor, on_line: (line: string) => void): Splitter {
  let rest = '';
  function take(text: string): void {
    const lines = (rest + text).split('\n');
    rest = lines.pop()!.slice(0, MAX_LINE_CHARS + 1);
    for (const line of lines) on_line(cut(line.endsWith('\r') ? line.slice(0, -1) : line));
  }
  return {
    push: (chunk) => take(redactor.push(chunk)),
    end() {
      take(redactor.flush());
      if (rest !== '') on_line(cut(rest));
      rest = '';
    },
  };
}

function cut(line: string): string {
  return line.length > MAX_LINE_CHARS ? line.slice(0, MAX_LINE_CHARS) + CUT_MARK : line;
}

interface Appender {
  append(line: LogLine): void;
  bytes(): number;
  close(): Promise<void>;
}

/** Queues lines and writes them in batches, one batch at a time; the queue is bounded. */
function appendTo(path: string, o: LogOptions, now: () => Date): Appender {
  const disk = tolerant(path, o, now);
  let waiting: Buffer[] = [];
  let waiting_bytes = 0;
  let dropped = 0;
  let accepted = 0;
  let state: 'open' | 'full' | 'closed' = 'open';
  let writing = (o.after ?? Promise.resolve()).then(() => disk.write([]));

  async function flush(): Promise<void> {
    const lines = waiting;
    waiting = [];
    waiting_bytes = 0;
    await disk.write(lines);
  }

  function queue(line: LogLine): void {
    const bytes = encoded(line);
    if (waiting_bytes + bytes.length > MAX_WAITING_BYTES) {
      dropped++;
      return;
    }
    if (waiting.length === 0) writing = writing.then(flush);
    waiting.push(bytes);
    waiting_bytes += bytes.length;
    accepted += bytes.length;
  }

  return {
    append(line) {
      if (state !== 'open') return;
      if (dropped > 0 && waiting.length === 0) {
        queue({ ...line, s: 'kiln', l: `${dropped} lines dropped: the disk is too slow` });
        dropped = 0;
      }
      if (o.on_full === 'rotate' || disk.earlier() + accepted < o.max_bytes) {
        queue(line);
        return;
      }
      state = 'full';
      queue({
        ...line,
        s: 'kiln',
        l: `the log reached its limit of ${o.max_bytes} bytes; the rest is dropped`,
      });
    },
    bytes: () => disk.earlier() + accepted,
    async close() {
      state = 'closed';
      await writing;
      await disk.close();
    },
  };
}

interface Disk {
  /** Never rejects. One at a time. */
  write(lines: readonly Buffer[]): Promise<void>;
  /** Bytes that an earlier writer left. */
  earlier(): number;
  close(): Promise<void>;
}

/**
 * Lines that the disk does not take are counted, and named in a line once it takes lines again. After an error the file is
 * opened anew: how far the disk got is seen then.
 */
function tolerant(path: string, o: LogOptions, now: () => Date): Disk {
  const file_bytes = o.on_full === 'rotate' ? o.max_bytes / 2 : Number.POSITIVE_INFINITY;
  let file: LogFile | undefined;
  let earlier: number | null = null;
  let lost = 0;

  async function write(lines: readonly Buffer[]): Promise<void> {
    try {
      file ??= await openFile(path, file_bytes);
      earlier ??= file.position();
      const l = `up to ${lost} lines are missing here: the disk did not take them`;
      const missing = lost > 0 ? [encoded({ t: now().toISOString(), s: 'kiln', l })] : [];
      await file.append([...missing, ...lines]);
      lost = 0;
    } catch (error) {
      await file?.close().catch(() => {});
      file = undefined;
      if (lost === 0) o.on_error?.(error instanceof Error ? error : new Error(String(error)));
      lost += Math.max(lines.length, 1);
    }
  }

  return {
    write,
    earlier: () => earlier ?? 0,
    async close() {
      if (lost > 0) await write([]);
      await file?.close().catch(() => {});
    },
  };
}

function encoded(line: LogLine): Buffer {
  return Buffer.from(`${JSON.stringify(line)}\n`);
}

interface LogFile {
  /** Writes lines; goes on in a fresh file whenever the current one has `file_bytes`. */
  append(lines: readonly Buffer[]): Promise<void>;
  position(): number;
  close(): Promise<void>;
}

async function openFile(path: string, file_bytes: number): Promise<LogFile> {
  await mkdir(dirname(path), { recursive: true });
  let handle: FileHandle = await open(path, 'a+');
  let { at, header_bytes } = await readStart(handle).catch(() => ({ at: 0, header_bytes: 0 }));
  let size = (await handle.stat()).size;
  const begins_at = header_bytes === 0 ? await endOf(previousPath(path)) : null;
  if (begins_at !== null) {
    // The file before this one was full, and then not even the first line of this one could be written.
    const header = startLine(begins_at);
    await handle.truncate(0);
    await handle.appendFile(header);
    [at, header_bytes, size] = [begins_at, header.length, header.length];
  }
  // A crash may have cut the last line: end it, so that the next one is whole.
  const last = await handle.read(Buffer.alloc(1), 0, 1, Math.max(0, size - 1));
  if (size > 0 && last.buffer[0] !== 10) {
    await handle.appendFile('\n');
    size++;
  }
  const position = () => at + size - header_bytes;

  async function rotate(): Promise<void> {
    const header = startLine(position());
    await handle.close();
    await rename(path, previousPath(path));
    handle = await open(path, 'a+');
    await handle.appendFile(header);
    at = position();
    header_bytes = header.length;
    size = header.length;
  }

  return {
    position,
    close: () => handle.close(),
    async append(lines) {
      let batch: Buffer[] = [];
      for (const line of lines) {
        if (size + line.length > file_bytes && size > header_bytes) {
          await handle.appendFile(Buffer.concat(batch));
          batch = [];
          await rotate();
        }
        batch.push(line);
        size += line.length;
      }
      if (batch.length > 0) await handle.appendFile(Buffer.concat(batch));
    },
  };
}

/** The position after the last line of a file; null when there is no such file. */
async function endOf(path: string): Promise<number | null> {
  const handle = await open(path, 'r').catch(() => null);
  if (handle === null) return null;
  try {
    const { at, header_bytes } = await readStart(handle);
    return at + (await handle.stat()).size - header_bytes;
  } finally {
    await handle.close();
  }
}
