import { closeSync, openSync, statSync, truncateSync } from 'node:fs';
import { open } from 'node:fs/promises';

const TAIL_BYTES = 64 * 1024;
const MAX_BYTES = 1024 * 1024;
const LOOK_MS = 500;

/**
 * A file that a VM's process writes to while nobody reads: it outlives the engine, and so must its output. The guest
 * decides how much comes, so what is too much is thrown away, all but the end.
 */
export interface LogFile {
  tail(): Promise<string>;
  /** Stops looking after it; what is there can still be read. */
  close(): void;
}

export function watchLogFile(path: () => string): LogFile {
  let kept: Buffer = Buffer.alloc(0);
  const timer = setInterval(() => void cut().catch(() => undefined), LOOK_MS).unref();
  async function cut(): Promise<void> {
    if ((statSync(path(), { throwIfNoEntry: false })?.size ?? 0) <= MAX_BYTES) return;
    kept = await readTail(path());
    // The writer appends, so it goes on at the new end.
    truncateSync(path(), 0);
  }
  return {
    async tail() {
      const text = Buffer.concat([kept, await readTail(path())]);
      return text.subarray(Math.max(0, text.length - TAIL_BYTES)).toString('utf8');
    },
    close: () => clearInterval(timer),
  };
}

async function readTail(path: string): Promise<Buffer> {
  try {
    const file = await open(path, 'r');
    try {
      const { size } = await file.stat();
      const length = Math.min(size, TAIL_BYTES);
      const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, size - length);
      return buffer.subarray(0, bytesRead);
    } finally {
      await file.close();
    }
  } catch {
    return Buffer.alloc(0);
  }
}

/** Runs `use` with files open for appending; the child has its own copies afterwards. */
export function withAppending<T>(paths: readonly string[], use: (fds: number[]) => T): T {
  const fds = paths.map((path) => openSync(path, 'a', 0o600));
  try {
    return use(fds);
  } finally {
    for (const fd of fds) closeSync(fd);
  }
}
