/**
 * Shared memory between the thread that reads a tree, the one that hashes it and the compressor: a ring of slabs, so that
 * a large tree needs no more memory than a small one and nothing is copied on the way.
 *
 *   reader ── {slot, length} ─► streamTar ─┬─► consumer (zstd, file) ─┐
 *      ▲                                   └─► digest thread         ─┤
 *      └─────────────── the slot is free again when both are done ◄───┘
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import type { MessagePort } from 'node:worker_threads';
import { SLAB_BYTES, type SlabSink } from './tar-writer.ts';

const SLOTS = 4;
const FREE = 0;
const FULL = 1;

export interface Slabs {
  memory: SharedArrayBuffer;
  /** A state per slot, and at the end whether the consumer gave up. */
  control: Int32Array;
}

export interface FullSlab {
  slot: number;
  length: number;
}

export function makeSlabs(): Slabs {
  return {
    memory: new SharedArrayBuffer(SLOTS * SLAB_BYTES),
    control: new Int32Array(new SharedArrayBuffer((SLOTS + 1) * 4)),
  };
}

export function viewSlab(slabs: Slabs, { slot, length }: FullSlab): Buffer {
  return Buffer.from(slabs.memory, slot * SLAB_BYTES, length);
}

export function freeSlab({ control }: Slabs, slot: number): void {
  Atomics.store(control, slot, FREE);
  Atomics.notify(control, slot);
}

/** Makes the reading thread stop at its next slab. */
export function giveUp(slabs: Slabs): void {
  Atomics.store(slabs.control, SLOTS, 1);
  for (let slot = 0; slot < SLOTS; slot++) freeSlab(slabs, slot);
}

/** The reading thread's end. Slots come round in order, because they are consumed in order. */
export function slabSender(slabs: Slabs, port: MessagePort): SlabSink {
  let slot = SLOTS - 1;
  return {
    take() {
      slot = (slot + 1) % SLOTS;
      Atomics.wait(slabs.control, slot, FULL);
      if (Atomics.load(slabs.control, SLOTS) === 1) throw new Error('the consumer gave up');
      return viewSlab(slabs, { slot, length: SLAB_BYTES });
    },
    give(length) {
      Atomics.store(slabs.control, slot, FULL);
      port.postMessage({ slot, length } satisfies FullSlab);
    },
  };
}

/** The digest thread's end: hashes each slab it is told about and says so; 'end' answers the digest. */
export async function digestSlabs(slabs: Slabs, port: MessagePort): Promise<string> {
  const digest = createHash('sha256');
  const ended = new Promise<void>((resolve) => {
    port.on('message', (message: FullSlab | 'end') => {
      if (message === 'end') {
        resolve();
        return;
      }
      digest.update(viewSlab(slabs, message));
      port.postMessage(message.slot);
    });
  });
  await Promise.race([ended, once(port, 'close')]);
  port.close();
  return digest.digest('hex');
}
