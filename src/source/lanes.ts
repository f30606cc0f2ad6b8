/**
 * Several threads write one tar file. Each takes the next share of the entries, reads it and compresses it by itself, and
 * waits for its turn to be given a place in the file. A slab becomes one zstd frame or gzip member, so that the file
 * depends on neither the number of threads nor which was faster.
 *
 *   lane ── read, compress ──┐
 *   lane ── read, compress ──┴─ in turn ─┬─► its place in the file
 *                                        └─► digest (a thread of its own: it must see all slabs in order)
 */
import { createHash, type Hash } from 'node:crypto';
import { writeSync } from 'node:fs';
import { gzipSync, constants as zlib, zstdCompressSync } from 'node:zlib';
import {
  type Share,
  SLAB_BYTES,
  type SlabSink,
  type TarSummary,
  type TarTask,
  writeTar,
} from './tar-writer.ts';
import { TarTooLarge } from './tree.ts';

export type Compression = 'none' | 'zstd' | 'gzip';

/** One is filled while the other is hashed. */
const SLABS_PER_LANE = 2;
const FREE = 0;
const FULL = 1;

/** Places in `control`. */
const NEXT_SHARE = 0;
/** Whose turn it is: the number of a share. */
const TURN = 1;
const GAVE_UP = 2;
/** How many slabs the digest thread was told of; then a slot and a length of each of the last ones. */
const TOLD = 3;
const FIRST_STATE = 4;

/** What the threads share. */
export interface Lanes {
  /** Open for writing, and nobody else's. */
  fd: number;
  compress: Compression;
  memory: SharedArrayBuffer;
  slots: number;
  control: Int32Array;
  /** Bytes so far: of the tar, of the file. Of who has the turn. */
  position: Float64Array;
}

export interface LaneTask {
  kind: 'lane';
  tar: TarTask;
  shares: Share[];
  lanes: Lanes;
  lane: number;
  /** This is the only lane, and hashes what it writes. */
  alone: boolean;
}

export interface LaneResult {
  parts: (TarSummary & { share: number })[];
  /** Of the tar; null when it is made by the digest thread. */
  sha256: string | null;
}

/** The disk did not take it. Without an errno of its own: what has one is taken for an error of the tree. */
export class OutputFailed extends Error {
  override readonly cause: Error;
  constructor(cause: Error) {
    super(cause.message);
    this.name = 'OutputFailed';
    this.cause = cause;
  }
}

export function makeLanes(fd: number, compress: Compression, count: number): Lanes {
  const slots = count * SLABS_PER_LANE;
  return {
    fd,
    compress,
    memory: new SharedArrayBuffer(slots * SLAB_BYTES),
    slots,
    control: new Int32Array(new SharedArrayBuffer((FIRST_STATE + slots + 2 * toldRoom(slots)) * 4)),
    position: new Float64Array(new SharedArrayBuffer(2 * 8)),
  };
}

/** As many slabs as can be full, and the end. */
const toldRoom = (slots: number) => slots + 1;

/** Makes all lanes stop at their next slab. */
export function giveUp({ control, slots }: Lanes): void {
  Atomics.store(control, GAVE_UP, 1);
  for (let slot = 0; slot < slots; slot++) setAndWake(control, FIRST_STATE + slot, FREE);
  setAndWake(control, TURN, -1);
}

/** Tells the digest thread that there is no more. Once no lane is at work any more. */
export function endDigest(lanes: Lanes): void {
  tell(lanes, 0, 0);
}

export function writeInLane(task: LaneTask): LaneResult {
  const digest = task.alone ? createHash('sha256') : null;
  const lane = new Lane(task, digest);
  const parts: LaneResult['parts'] = [];
  for (let share = lane.nextShare(); share < task.shares.length; share = lane.nextShare())
    parts.push({ share, ...writeTar(task.tar, task.shares[share]!, lane) });
  return { parts, sha256: digest?.digest('hex') ?? null };
}

class Lane implements SlabSink {
  readonly #lanes: Lanes;
  readonly #first_slot: number;
  readonly #max_bytes: number;
  readonly #digest: Hash | null;
  #taken = 0;
  #share = -1;

  constructor({ lanes, lane, tar }: LaneTask, digest: Hash | null) {
    this.#lanes = lanes;
    this.#first_slot = lane * SLABS_PER_LANE;
    this.#max_bytes = tar.max_bytes;
    this.#digest = digest;
  }

  nextShare(): number {
    this.#share = Atomics.add(this.#lanes.control, NEXT_SHARE, 1);
    return this.#share;
  }

  get #slot(): number {
    return this.#first_slot + (this.#taken % SLABS_PER_LANE);
  }

  take(): Buffer {
    const { control } = this.#lanes;
    this.#taken++;
    Atomics.wait(control, FIRST_STATE + this.#slot, FULL);
    this.#refuseGivenUp();
    return viewSlab(this.#lanes, this.#slot, SLAB_BYTES);
  }

  give(length: number, is_last: boolean): void {
    const slab = viewSlab(this.#lanes, this.#slot, length);
    const packed = length === 0 ? slab : orOutputFailed(() => compressed(slab, this.#lanes.compress));
    this.#awaitTurn();
    const { control, position } = this.#lanes;
    const [tar_bytes, file_bytes] = position as unknown as [number, number];
    if (tar_bytes + length > this.#max_bytes) throw new TarTooLarge(tar_bytes + length, this.#max_bytes);
    position[0] = tar_bytes + length;
    position[1] = file_bytes + packed.length;
    if (this.#digest) this.#digest.update(slab);
    else if (length > 0) {
      Atomics.store(control, FIRST_STATE + this.#slot, FULL);
      tell(this.#lanes, this.#slot, length);
    }
    if (is_last) setAndWake(control, TURN, this.#share + 1);
    orOutputFailed(() => writeFully(this.#lanes.fd, packed, file_bytes));
  }

  #awaitTurn(): void {
    const { control } = this.#lanes;
    for (;;) {
      const turn = Atomics.load(control, TURN); // before the question whether it was given up, which changes the turn after
      this.#refuseGivenUp();
      if (turn === this.#share) return;
      Atomics.wait(control, TURN, turn);
    }
  }

  #refuseGivenUp(): void {
    if (Atomics.load(this.#lanes.control, GAVE_UP) === 1) throw new Error('the writing was given up');
  }
}

/** The digest thread: hashes the slabs it is told of, in that order, and frees them. */
export function digestLanes(lanes: Lanes): string {
  const { control, slots } = lanes;
  const digest = createHash('sha256');
  for (let hashed = 0; ; hashed++) {
    while (Atomics.load(control, TOLD) === hashed) Atomics.wait(control, TOLD, hashed);
    const at = FIRST_STATE + slots + 2 * (hashed % toldRoom(slots));
    const [slot, length] = control.subarray(at, at + 2) as unknown as [number, number];
    if (length === 0) return digest.digest('hex');
    digest.update(viewSlab(lanes, slot, length));
    setAndWake(control, FIRST_STATE + slot, FREE);
  }
}

/** Of who has the turn. */
function tell({ control, slots }: Lanes, slot: number, length: number): void {
  const told = Atomics.load(control, TOLD);
  control.set([slot, length], FIRST_STATE + slots + 2 * (told % toldRoom(slots)));
  setAndWake(control, TOLD, told + 1);
}

function viewSlab({ memory }: Lanes, slot: number, length: number): Buffer {
  return Buffer.from(memory, slot * SLAB_BYTES, length);
}

function setAndWake(control: Int32Array, at: number, value: number): void {
  Atomics.store(control, at, value);
  Atomics.notify(control, at);
}

/**
 * Level 1 keeps pace with the reading; higher ones would be what a publish waits for. Neither format says when or where it was
 * made, so equal input gives equal bytes.
 */
function compressed(slab: Buffer, compress: Compression): Buffer {
  const chunkSize = SLAB_BYTES + SLAB_BYTES / 64; // what does not compress grows a little; all in one piece
  switch (compress) {
    case 'none':
      return slab;
    case 'zstd':
      return zstdCompressSync(slab, { chunkSize, params: { [zlib.ZSTD_c_compressionLevel]: 1 } });
    case 'gzip':
      return gzipSync(slab, { chunkSize, level: 1 });
  }
}

function writeFully(fd: number, bytes: Buffer, at: number): void {
  for (let done = 0; done < bytes.length; )
    done += writeSync(fd, bytes, done, bytes.length - done, at + done);
}

function orOutputFailed<T>(action: () => T): T {
  try {
    return action();
  } catch (error) {
    throw new OutputFailed(error as Error);
  }
}
