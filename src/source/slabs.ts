/**
 * Shared memory between the thread that reads a tree and who consumes the tar: a ring of slabs, so that a large tree needs no
 * more memory than a small one and nothing is copied on the way.
 *
 *   reader ── {slot, length} ─► streamTar ──► consumer
 *      ▲                                          │
 *      └──────── the slot is free again ◄─────────┘
 */
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
