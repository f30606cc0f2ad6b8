/**
 * The engine's own log, `logs/engine.log`: lines of JSON, bounded and redacted. A line is written at once, so that the last
 * words of an engine that dies are there; what the disk does not take is dropped and counted, and nobody fails for it (I12).
 */
import { closeSync, fstatSync, mkdirSync, openSync, renameSync, writeSync } from 'node:fs';
import path from 'node:path';
import pino from 'pino';
import { redactIn } from '../domain/redact.ts';
import type { Log } from './context.ts';

/** Of the file and the one before it (`engine.log.1`) together. */
const MAX_BYTES = 32 * 1024 * 1024;

export interface EngineLogOptions {
  file: string;
  level: string;
  redact: (text: string) => string;
  max_bytes?: number;
  /** Is told the same, redacted. */
  also?: Log | undefined;
}

export function engineLog(o: EngineLogOptions): Log {
  const lines = boundedLines(o.file, o.max_bytes ?? MAX_BYTES);
  const file = pino({ level: o.level, base: null }, lines);
  return (level, message, data) => {
    const said = o.redact(message);
    const with_it = data && redactIn(data, o.redact);
    file[level](with_it ?? {}, said);
    o.also?.(level, said, with_it);
  };
}

function boundedLines(file: string, max_bytes: number): { write(line: string): void } {
  let fd: number | null = null;
  let size = 0;
  let dropped = 0;

  function open(): number {
    mkdirSync(path.dirname(file), { recursive: true, mode: 0o700 });
    const opened = openSync(file, 'a', 0o600);
    size = fstatSync(opened).size;
    return opened;
  }

  function append(line: string): void {
    const bytes = Buffer.from(line);
    fd ??= open();
    if (size > 0 && size + bytes.length > max_bytes / 2) {
      closeSync(fd);
      fd = null;
      renameSync(file, `${file}.1`);
      fd = open();
    }
    for (let at = 0; at < bytes.length; ) {
      const written = writeSync(fd, bytes, at);
      at += written;
      size += written;
    }
  }

  return {
    write(line) {
      try {
        // Begins a line of its own, wherever the last one was cut off.
        if (dropped > 0) append(`\n${missing(dropped)}`);
        dropped = 0;
        append(line);
      } catch {
        dropped++;
      }
    },
  };
}

function missing(lines: number): string {
  const msg = `${lines} lines are missing here: the disk did not take them`;
  return `${JSON.stringify({ level: pino.levels.values.warn, time: Date.now(), msg })}\n`;
}
