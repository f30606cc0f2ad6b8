/**
 * Writes a tree, or a share of one, as a canonical tar into slabs, synchronously: it runs in a thread of its own, where
 * blocking calls are three times as fast as their asynchronous forms and disturb nobody.
 *
 * A file is trusted only when nothing about it changed from before the read to after it. Files smaller than a slab
 * are read again in place until they settle. A larger one is already hashed by then, so the whole tar starts
 * again (TreeChanged); that is rare, and keeps the stream append-only.
 */

import { isUtf8 } from 'node:buffer';
import { createHash, hash } from 'node:crypto';
import { closeSync, constants, fstatSync, openSync, readlinkSync, readSync } from 'node:fs';
import { fillRow, isUnchanged } from './stat.ts';
import { BLOCK, END_BYTES, encodeHeader, paddedSize } from './tar-format.ts';
import {
  errno,
  Folders,
  isGone,
  isOtherKind,
  KIND,
  ROW,
  TarTooLarge,
  TreeChanged,
  TreeUnreadable,
} from './tree.ts';

export const SLAB_BYTES = 2 * 1024 * 1024;
const MAX_READS = 5;
const BACKOFF_MS = 10;

/** Where the bytes go: `take` gives an empty slab and may block until there is one, `give` hands it on, filled so far. */
export interface SlabSink {
  take(): Buffer;
  give(length: number, is_last: boolean): void;
}

export interface TarTask {
  root: string;
  /** Put before every name that comes from the tree. */
  prefix: string;
  /** Paths relative to the root, and their stat rows, which become those of the time of reading; vanished paths have kind `gone`. */
  paths: string[];
  rows: Float64Array;
  /** Paths whose content is that of another file of the tree (links turned into copies). */
  copies: Map<string, string>;
  /** Files that are not in the tree, by full name in the archive. */
  extra: { path: string; content: Uint8Array; executable: boolean }[];
  /** What is in the archive, in its order: a place in `paths`, or -1 minus a place in `extra`. */
  entries: Int32Array;
  want_index: boolean;
  max_bytes: number;
}

/** Some entries that follow each other: the places in `entries` of the first and of the first that is no more in it. */
export interface Share {
  from: number;
  to: number;
}

export interface TarSummary {
  size_bytes: number;
  /** Sum of the contents. */
  file_bytes: number;
  /** Files and links. */
  files: number;
  /** Archive name, offset in the share and size of the content, digest; regular files only, empty unless asked for. */
  index: { name: string; offset: number; size: number; sha256: string }[];
}

/** Collects bytes in slabs and hands them on when they are full. */
class SlabWriter {
  slab: Buffer;
  used = 0;
  #before = 0;
  readonly #sink: SlabSink;
  readonly #max_bytes: number;

  constructor(sink: SlabSink, max_bytes: number) {
    this.#sink = sink;
    this.#max_bytes = max_bytes;
    this.slab = sink.take();
  }

  /** Bytes written so far. */
  get position(): number {
    return this.#before + this.used;
  }

  get room(): number {
    return this.slab.length - this.used;
  }

  /** Makes sure that `length` bytes fit in one piece. */
  reserve(length: number): void {
    if (this.room < length) this.flush();
  }

  write(bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) {
      if (this.room === 0) this.flush();
      const part = bytes.subarray(done, done + this.room);
      this.slab.set(part, this.used);
      this.used += part.length;
      done += part.length;
    }
  }

  pad(): void {
    const rest = this.position % BLOCK;
    if (rest > 0) this.write(Buffer.alloc(BLOCK - rest));
  }

  flush(): void {
    if (this.used === 0) return;
    this.#give(false);
    this.slab = this.#sink.take();
  }

  end(): void {
    this.#give(true);
  }

  #give(is_last: boolean): void {
    if (this.position > this.#max_bytes) throw new TarTooLarge(this.position, this.#max_bytes);
    this.#before += this.used;
    const length = this.used;
    this.used = 0;
    this.#sink.give(length, is_last);
  }
}

/**
 * Writes a share; the one with the last entry ends the archive.
 * @throws TreeUnreadable, TreeChanged (start again), TarTooLarge, and what the sink throws, which must have no errno
 */
export function writeTar(task: TarTask, share: Share, sink: SlabSink): TarSummary {
  const writer = new TarWriter(task, sink);
  try {
    return writer.run(share);
  } finally {
    writer.close();
  }
}

class TarWriter {
  readonly #task: TarTask;
  readonly #out: SlabWriter;
  readonly #folders: Folders;
  readonly #summary: TarSummary;

  constructor(task: TarTask, sink: SlabSink) {
    this.#task = task;
    this.#out = new SlabWriter(sink, task.max_bytes);
    this.#folders = new Folders(task.root);
    this.#summary = { size_bytes: 0, file_bytes: 0, files: 0, index: [] };
  }

  run({ from, to }: Share): TarSummary {
    const { entries, extra } = this.#task;
    for (const entry of entries.subarray(from, to)) {
      if (entry < 0) this.#extra(extra[-1 - entry]!);
      else this.#entry(entry);
    }
    if (to === entries.length) this.#out.write(Buffer.alloc(END_BYTES));
    this.#summary.size_bytes = this.#out.position;
    this.#out.end();
    return this.#summary;
  }

  close(): void {
    this.#folders.close();
  }

  #entry(i: number): void {
    const { prefix, paths, rows } = this.#task;
    const path = paths[i]!;
    const name = prefix + path;
    const at = i * ROW.width;
    const kind = rows[at + ROW.kind];
    try {
      if (kind === KIND.dir) this.#out.write(encodeHeader('dir', name, 0));
      else if (kind === KIND.symlink) this.#link(path, name);
      else if (kind === KIND.file) this.#file(i, this.#task.copies.get(path) ?? path, name);
    } catch (error) {
      if (isGone(error)) rows[at + ROW.kind] = KIND.gone;
      else if (isOtherKind(error)) throw new TreeChanged(path);
      else if (errno(error) !== '') throw new TreeUnreadable(path, `cannot be read (${errno(error)})`);
      else throw error;
    }
  }

  #link(path: string, name: string): void {
    const target = readlinkSync(this.#folders.entry(path), 'buffer');
    if (!isUtf8(target)) throw new TreeUnreadable(path, 'is a link whose target is not valid UTF-8');
    this.#out.write(encodeHeader('symlink', name, 0, target.toString('utf8')));
    this.#summary.files++;
  }

  #extra(of: TarTask['extra'][number]): void {
    this.#out.write(encodeHeader(of.executable ? 'executable' : 'file', of.path, of.content.length));
    const offset = this.#out.position;
    this.#out.write(of.content);
    this.#out.pad();
    this.#count(of.path, offset, of.content.length, () => hash('sha256', of.content, 'hex'));
  }

  #file(i: number, path: string, name: string): void {
    const { rows } = this.#task;
    const at = i * ROW.width;
    for (let attempt = 0; attempt < MAX_READS; attempt++) {
      if (attempt > 0) sleep(BACKOFF_MS * 2 ** attempt);
      const fd = openSync(
        this.#folders.entry(path),
        constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK,
      );
      try {
        // The first time the row is older than the open, which only makes the comparison stricter.
        if (attempt > 0) fillRow(rows, i, fstatSync(fd));
        if (rows[at + ROW.kind] !== KIND.file) throw new TreeChanged(path);
        const size = rows[at + ROW.size]!;
        const header = encodeHeader(rows[at + ROW.mode]! & 0o100 ? 'executable' : 'file', name, size);
        if (header.length + paddedSize(size) > SLAB_BYTES) {
          this.#largeFile(i, fd, path, name, header);
          return;
        }
        if (this.#smallFile(i, fd, name, header)) return;
      } finally {
        closeSync(fd);
      }
    }
    throw new TreeUnreadable(path, `kept changing while it was read (${MAX_READS} attempts)`);
  }

  /** False when the file changed meanwhile; nothing is written then. */
  #smallFile(i: number, fd: number, name: string, header: Buffer): boolean {
    const size = this.#task.rows[i * ROW.width + ROW.size]!;
    const out = this.#out;
    out.reserve(header.length + paddedSize(size));
    const start = out.used + header.length;
    const end = start + size;
    if (readFully(fd, out.slab, start, size) !== size || !isUnchanged(this.#task.rows, i, fd)) return false;
    header.copy(out.slab, out.used);
    const padded_end = start + paddedSize(size);
    out.slab.fill(0, end, padded_end);
    const content = out.slab.subarray(start, end);
    out.used = padded_end;
    const offset = out.position - paddedSize(size);
    this.#count(name, offset, size, () => hash('sha256', content, 'hex'));
    return true;
  }

  #largeFile(i: number, fd: number, path: string, name: string, header: Buffer): void {
    const size = this.#task.rows[i * ROW.width + ROW.size]!;
    const out = this.#out;
    if (out.position + size > this.#task.max_bytes)
      throw new TarTooLarge(out.position + size, this.#task.max_bytes);
    const digest = this.#task.want_index ? createHash('sha256') : null;
    out.write(header);
    const offset = out.position;
    for (let done = 0; done < size; ) {
      if (out.room === 0) out.flush();
      const got = readSync(fd, out.slab, out.used, Math.min(out.room, size - done), null);
      if (got === 0) throw new TreeChanged(path);
      digest?.update(out.slab.subarray(out.used, out.used + got));
      out.used += got;
      done += got;
    }
    if (!isUnchanged(this.#task.rows, i, fd)) throw new TreeChanged(path);
    out.pad();
    this.#count(name, offset, size, () => digest!.digest('hex'));
  }

  #count(name: string, offset: number, size: number, sha256: () => string): void {
    this.#summary.files++;
    this.#summary.file_bytes += size;
    if (this.#task.want_index) this.#summary.index.push({ name, offset, size, sha256: sha256() });
  }
}

function readFully(fd: number, into: Buffer, at: number, size: number): number {
  let done = 0;
  while (done < size) {
    const got = readSync(fd, into, at + done, size - done, null);
    if (got === 0) break;
    done += got;
  }
  return done;
}

const never = new Int32Array(new SharedArrayBuffer(4));

/** Blocks this thread. */
function sleep(duration_ms: number): void {
  Atomics.wait(never, 0, 0, duration_ms);
}
