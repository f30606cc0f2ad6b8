import { setTimeout as sleep } from 'node:timers/promises';
import type Docker from 'dockerode';
import type { Limits } from '../driver.ts';
import { makeGate } from '../output.ts';
import { isGone } from './engine.ts';

type OnOutput = (stream: 'stdout' | 'stderr', chunk: Buffer) => void;

export interface ContainerOutput {
  /** Resolves when everything was delivered, at the latest after `patience_ms`. */
  drained(patience_ms: number): Promise<void>;
  close(): void;
}

/** Output of a container that has not started yet, straight from its pipes: nothing is written to a disk. */
export async function attachOutput(
  docker: Docker,
  container: Docker.Container,
  o: { limits: Limits; on_output: OnOutput; on_full: () => void },
): Promise<ContainerOutput> {
  const gate = makeGate(o, o.on_full);
  const stream = await container.attach({ stream: true, stdout: true, stderr: true });
  split(docker, stream, gate);
  const ended = new Promise<void>((resolve) => {
    for (const event of ['end', 'close', 'error']) stream.once(event, () => resolve());
  });
  const close = () => (stream as unknown as { destroy(): void }).destroy();
  return {
    async drained(patience_ms) {
      await Promise.race([ended, sleep(patience_ms, undefined, { ref: false })]);
      close();
    },
    close,
  };
}

const RECONNECT_MS = 500;

/**
 * Output of a container from the daemon's log, which goes on through restarts of daemon and engine. Every frame of
 * the log begins with its time; after a reconnect what was seen is left out by it.
 */
export function followLog(
  docker: Docker,
  container: Docker.Container,
  o: { limits: Limits; on_output: OnOutput; since: Date | null },
): ContainerOutput {
  const given_up = new AbortController();
  const gate = makeGate(o, () => undefined);
  const counted = countdown(o.limits.log_bytes, () => given_up.abort());
  const seen = makeSeen();

  async function follow(): Promise<void> {
    const since = seen.time() ?? (o.since === null ? 0 : o.since.getTime() / 1000);
    const stream = await container.logs({
      ...{ follow: true as const, stdout: true, stderr: true, timestamps: true, since },
      abortSignal: given_up.signal,
    });
    const begin = seen.reconnected();
    split(docker, stream, (name, frame) => {
      const { time, text } = splitTime(frame);
      if (time !== null && begin(time)) return;
      gate(name, text);
      counted(text.length);
    });
    await new Promise<void>((resolve) => {
      for (const event of ['end', 'close', 'error']) stream.once(event, () => resolve());
    });
  }

  const ended = (async () => {
    while (!given_up.signal.aborted) {
      try {
        await follow();
        // The daemon ends the stream with the container, and when it is itself ended.
        if (!(await container.inspect()).State.Running) return;
      } catch (error) {
        if (isGone(error)) return;
      }
      await sleep(RECONNECT_MS, undefined, { ref: false });
    }
  })();

  return {
    async drained(patience_ms) {
      await Promise.race([ended, sleep(patience_ms, undefined, { ref: false })]);
      given_up.abort();
    },
    close: () => given_up.abort(),
  };
}

/** Once more than the limit came, nobody needs to read on: the daemon keeps its log small by itself. */
function countdown(bytes: number, on_zero: () => void): (length: number) => void {
  let left = bytes;
  return (length) => {
    left -= length;
    if (left < 0) on_zero();
  };
}

/** Remembers the newest frame: its time, and how many frames had the same. */
function makeSeen() {
  let newest = '';
  let count = 0;
  return {
    /** Seconds since 1970 with nanoseconds, as the daemon takes it. */
    time(): string | null {
      if (newest === '') return null;
      const seconds = Math.floor(Date.parse(newest) / 1000);
      return `${seconds}.${/\.(\d+)/.exec(newest)?.[1] ?? '0'}`;
    },
    /** Begins a new stream; tells of each frame of it whether it was seen before. */
    reconnected(): (time: string) => boolean {
      const before = { newest, count };
      let same = 0;
      return (time) => {
        if (time < before.newest) return true;
        if (time === before.newest && ++same <= before.count) return true;
        count = time === newest ? count + 1 : 1;
        newest = time;
        return false;
      };
    },
  };
}

/** `2026-11-25T19:15:41.788599950Z text` */
export function splitTime(frame: Buffer): { time: string | null; text: Buffer } {
  const blank = frame.indexOf(0x20);
  const time = frame.subarray(0, Math.max(0, blank)).toString('latin1');
  if (!/^\d{4}-\d\d-\d\dT[\d:.]+Z$/.test(time)) return { time: null, text: frame };
  return { time, text: frame.subarray(blank + 1) };
}

function split(docker: Docker, stream: NodeJS.ReadableStream, gate: OnOutput): void {
  const sink = (name: 'stdout' | 'stderr') =>
    ({ write: (chunk: Buffer) => gate(name, chunk) }) as unknown as NodeJS.WritableStream;
  docker.modem.demuxStream(stream, sink('stdout'), sink('stderr'));
}
