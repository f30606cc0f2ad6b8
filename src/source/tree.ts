/**
 * What the rooms of `source/` say to each other about a tree on disk, and the one safe way to reach into it.
 */
import { closeSync, constants, existsSync, mkdirSync, openSync } from 'node:fs';

/** Kinds in a stat row. */
export const KIND = { gone: 0, file: 1, dir: 2, symlink: 3, other: 4 } as const;

/**
 * Stat rows travel between threads as one Float64Array. Times are milliseconds with a fraction: a double holds
 * them to 0.25 µs, finer than any file system clock we compare with.
 */
export const ROW = { kind: 0, mode: 1, size: 2, mtime_ms: 3, ctime_ms: 4, ino: 5, width: 6 } as const;

/** A path that cannot be read, or that never stopped changing. */
export class TreeUnreadable extends Error {
  readonly path: string;
  readonly reason: string;
  constructor(path: string, reason: string) {
    super(`"${path}" ${reason}`);
    this.name = 'TreeUnreadable';
    this.path = path;
    this.reason = reason;
  }
}

/** The tree changed under us in a way one more read of one file cannot settle: the whole reading starts again. */
export class TreeChanged extends Error {
  readonly path: string;
  constructor(path: string) {
    super(`"${path}" changed while it was read`);
    this.name = 'TreeChanged';
    this.path = path;
  }
}

/** The tar grew over its limit; `size_bytes` is what it would have been, as far as known. */
export class TarTooLarge extends Error {
  readonly size_bytes: number;
  readonly max_bytes: number;
  constructor(size_bytes: number, max_bytes: number) {
    super(`the tar would be ${size_bytes} bytes, the limit is ${max_bytes}`);
    this.name = 'TarTooLarge';
    this.size_bytes = size_bytes;
    this.max_bytes = max_bytes;
  }
}

export function errno(error: unknown): string {
  return (error as NodeJS.ErrnoException | null)?.code ?? '';
}

/** The path, or a folder above it, is not there (any more). */
export function isGone(error: unknown): boolean {
  return errno(error) === 'ENOENT';
}

/** A path that was a folder or a file has become something else, a link most likely. */
export function isOtherKind(error: unknown): boolean {
  return ['ENOTDIR', 'ELOOP', 'EINVAL', 'EISDIR', 'ENXIO'].includes(errno(error));
}

const FD_FOLDER = existsSync('/proc/self/fd') ? '/proc/self/fd' : null;
const OPEN_FOLDER = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;
const MAX_OPEN = 32;

/**
 * Folders of one tree, reached one name at a time without following links. A workspace is shared with code nobody
 * has read; between a check and an open that code could swap a folder for a link to somewhere else on the host.
 * So each folder is opened through its parent's descriptor (/proc/self/fd/N/name is Linux's openat for Node), and
 * children are then addressed below that descriptor. Where there is no /proc (a developer's macOS) plain paths are
 * used: nobody hostile shares that tree.
 */
export class Folders {
  readonly root: string;
  #root_fd: number | null = null;
  readonly #open = new Map<string, number>();
  readonly #on_create: (() => void) | null;

  /**
   * `root` is no link itself (realRoot), and is opened once, when it is first needed: what takes its place later is not
   * looked at. With `on_create`, missing folders below it are made (0755) and each one is announced before (it may throw).
   */
  constructor(root: string, on_create: (() => void) | null = null) {
    this.root = root;
    this.#on_create = on_create;
  }

  /** A path for the folder `rel` ('' is the root), good for the next few calls. Errors are those of open(2). */
  at(rel: string): string {
    if (!FD_FOLDER && !this.#on_create) return rel === '' ? this.root : `${this.root}/${rel}`;
    if (rel === '') {
      this.#root_fd ??= openSync(this.root, OPEN_FOLDER);
      return this.#address(this.#root_fd, '');
    }
    const known = this.#open.get(rel);
    if (known !== undefined) {
      this.#open.delete(rel); // and to the end: the least used one is closed first
      this.#open.set(rel, known);
      return this.#address(known, rel);
    }
    const fd = this.#enter(rel);
    if (this.#open.size >= MAX_OPEN) {
      const [oldest, oldest_fd] = this.#open.entries().next().value!;
      this.#open.delete(oldest);
      closeSync(oldest_fd);
    }
    this.#open.set(rel, fd);
    return this.#address(fd, rel);
  }

  /**
   * A path for the entry `rel` itself; its last segment is not opened, so use it with what follows no link there:
   * lstat, readlink, unlink, rename, rmdir, O_NOFOLLOW.
   */
  entry(rel: string): string {
    if (rel === '') return `${this.at('')}/.`; // the folder, not the link that /proc has for a descriptor
    const slash = rel.lastIndexOf('/');
    return slash < 0 ? `${this.at('')}/${rel}` : `${this.at(rel.slice(0, slash))}/${rel.slice(slash + 1)}`;
  }

  close(): void {
    for (const fd of this.#open.values()) closeSync(fd);
    this.#open.clear();
    if (this.#root_fd !== null) closeSync(this.#root_fd);
    this.#root_fd = null;
  }

  #address(fd: number, rel: string): string {
    if (FD_FOLDER) return `${FD_FOLDER}/${fd}`;
    return rel === '' ? this.root : `${this.root}/${rel}`;
  }

  /** Opens `rel` from its nearest open ancestor on. Only the folder itself is kept: one call closes at most one other. */
  #enter(rel: string): number {
    const segments = rel.split('/');
    let depth = segments.length - 1;
    while (depth > 0 && !this.#open.has(segments.slice(0, depth).join('/'))) depth--;
    const start = segments.slice(0, depth).join('/');
    let fd = -1;
    let at = this.at(start);
    for (; depth < segments.length; depth++) {
      let next: number;
      try {
        next = this.#enterChild(`${at}/${segments[depth]}`);
      } finally {
        if (fd >= 0) closeSync(fd);
      }
      fd = next;
      at = this.#address(fd, segments.slice(0, depth + 1).join('/'));
    }
    return fd;
  }

  #enterChild(path: string): number {
    try {
      return openSync(path, OPEN_FOLDER);
    } catch (error) {
      if (!this.#on_create || !isGone(error)) throw error;
    }
    this.#on_create();
    try {
      mkdirSync(path, 0o755);
    } catch (error) {
      if (errno(error) !== 'EEXIST') throw error; // somebody else's, made just now
    }
    return openSync(path, OPEN_FOLDER);
  }
}
