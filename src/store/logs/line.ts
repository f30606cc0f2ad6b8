import type { FileHandle } from 'node:fs/promises';

/**
 * The shape of a log on disk: one JSON object per line in `<path>`, and with rotation the lines before them in
 * `<path>.1`. Positions count bytes of all lines ever written and never go back; a file that does not begin at
 * position 0 says where it does in a first line of its own, `{"at":…}`, which is not counted.
 */
export interface LogLine {
  /** ISO time. */
  t: string;
  s: LogStream;
  l: string;
}
export type LogStream = 'stdout' | 'stderr' | 'kiln';

/** What the start of a file says: the position of its first line, and how many bytes that statement takes. */
export interface FileStart {
  at: number;
  header_bytes: number;
}

export function previousPath(path: string): string {
  return `${path}.1`;
}

export function startLine(at: number): Buffer {
  return Buffer.from(`${JSON.stringify({ at })}\n`);
}

export async function readStart(handle: FileHandle): Promise<FileStart> {
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(64), 0, 64, 0);
  const text = buffer.toString('latin1', 0, bytesRead);
  const match = /^\{"at":(\d+)\}\n/.exec(text);
  return match === null
    ? { at: 0, header_bytes: 0 }
    : { at: Number(match[1]), header_bytes: match[0].length };
}
