import { open } from 'node:fs/promises';
import { join } from 'node:path';
import type { OutputReader, Receive } from './run.ts';

const STREAMS = ['stdout', 'stderr'] as const;
const POLL_MS = 200;
const PIECE_BYTES = 256 * 1024;

export type Offsets = Record<(typeof STREAMS)[number], number>;

/**
 * Output of an instance, which the VM writes to files whether an engine is there or not. Read from where the last
 * engine stopped; `on_read` says how far, so that the next one can go on from there.
 */
export function readLogFiles(o: {
  dir: string;
  from: Offsets;
  receive: Receive;
  on_read: (offsets: Offsets) => void;
}): OutputReader {
  const offsets = { ...o.from };
  let closed = false;
  let reading: Promise<void> = Promise.resolve();

  async function readNew(name: (typeof STREAMS)[number]): Promise<boolean> {
    const file = await open(join(o.dir, `${name}.log`)).catch(() => null);
    if (file === null) return false;
    try {
      const piece = Buffer.alloc(PIECE_BYTES);
      const { bytesRead } = await file.read(piece, 0, PIECE_BYTES, offsets[name]);
      if (bytesRead === 0) return false;
      offsets[name] += bytesRead;
      o.receive(name, piece.subarray(0, bytesRead));
      return bytesRead === PIECE_BYTES;
    } finally {
      await file.close();
    }
  }

  async function look(): Promise<void> {
    const before = JSON.stringify(offsets);
    for (const name of STREAMS) while (!closed && (await readNew(name)));
    if (JSON.stringify(offsets) !== before) o.on_read({ ...offsets });
  }

  const poll = () => {
    reading = reading.then(look).catch(() => undefined);
    return reading;
  };
  const timer = setInterval(() => void poll(), POLL_MS);
  return {
    poll,
    async close() {
      clearInterval(timer);
      closed = true;
      await reading;
    },
  };
}
