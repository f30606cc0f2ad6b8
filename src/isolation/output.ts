import { execFile } from 'node:child_process';
import { closeSync, constants, openSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { Socket } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { MachineSpec } from './driver.ts';

/**
 * A machine's stdout and stderr, as real pipes. Node's own 'pipe' is a socket pair, which cannot be opened again
 * through /dev/stdout or /dev/stderr, as many images and scripts do.
 */
export interface Output {
  /** Write ends for the child; the caller closes them through `started` once the child has them. */
  child_fds: [number, number];
  started(): void;
  /** Resolves when both pipes are at their end, or `patience_ms` after the call: a survivor may hold them open. */
  drained(patience_ms: number): Promise<void>;
  /** The last 2 KiB of stderr, for the reason why a machine could not be started. */
  stderrTail(): string;
}

type Stream = 'stdout' | 'stderr';

/** `on_full` is called once when more than `limits.log_bytes` came, and builds are to be killed for it. */
export async function openOutput(
  dir: string,
  spec: Pick<MachineSpec, 'limits' | 'on_output'>,
  on_full: () => void,
): Promise<Output> {
  const paths = [join(dir, 'stdout'), join(dir, 'stderr')] as const;
  await promisify(execFile)('mkfifo', ['-m', '600', ...paths]);
  const reads = paths.map((path) => openSync(path, constants.O_RDONLY | constants.O_NONBLOCK));
  const writes = paths.map((path) => openSync(path, constants.O_WRONLY)) as [number, number];
  await Promise.all(paths.map((path) => rm(path)));

  const gate = makeGate(spec, on_full);
  let tail = Buffer.alloc(0);
  const sockets = (['stdout', 'stderr'] as const).map((stream, index) => {
    const socket = new Socket({ fd: reads[index]!, readable: true, writable: false });
    socket.on('data', (chunk: Buffer) => {
      if (stream === 'stderr') tail = Buffer.concat([tail, chunk]).subarray(-2048);
      gate(stream, chunk);
    });
    socket.on('error', () => socket.destroy());
    return socket;
  });
  const ended = Promise.all(sockets.map((socket) => new Promise((done) => socket.once('close', done))));

  return {
    child_fds: writes,
    started() {
      for (const fd of writes) closeSync(fd);
    },
    async drained(patience_ms) {
      const timer = setTimeout(() => {
        for (const socket of sockets) socket.destroy();
      }, patience_ms);
      await ended;
      clearTimeout(timer);
    },
    stderrTail: () => tail.toString('utf8').trim(),
  };
}

/** Passes output on up to the limit; what comes later is read and thrown away, so that the app never blocks on it. */
export function makeGate(spec: Pick<MachineSpec, 'limits' | 'on_output'>, on_full: () => void) {
  let left = spec.limits.log_bytes;
  let full = false;
  function pass(stream: Stream, chunk: Buffer): void {
    try {
      spec.on_output(stream, chunk);
    } catch {
      // A log must never change the outcome (I12).
    }
  }
  return (stream: Stream, chunk: Buffer): void => {
    if (full) return;
    if (chunk.length <= left) {
      left -= chunk.length;
      pass(stream, chunk);
      return;
    }
    full = true;
    if (left > 0) pass(stream, chunk.subarray(0, left));
    const fate = spec.limits.on_log_limit === 'kill' ? 'stopping' : 'further output is dropped';
    pass('stderr', Buffer.from(`\n[kiln] more than ${spec.limits.log_bytes} bytes of output: ${fate}\n`));
    if (spec.limits.on_log_limit === 'kill') on_full();
  };
}
