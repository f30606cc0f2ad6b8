/**
 * Puts tar entries into a folder that code nobody has read may be changing at the same time.
 *
 * Nothing is ever written through a link: folders are entered one name at a time without following links (Folders),
 * files are made new (O_EXCL), and the archive's own links come last, when no more file follows. A link is stored as
 * it is, wherever it points: whoever reads the tree later follows no link out of it (followInside, packTree).
 */
import {
  closeSync,
  constants,
  fchmodSync,
  linkSync,
  openSync,
  rmdirSync,
  symlinkSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { KilnError } from '../domain/errors.ts';
import { invalidArchive, quote, type TarEntry, type TarReceiver } from './tar-reader.ts';
import { errno, Folders, isOtherKind } from './tree.ts';

const CREATE = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
const MAX_NAME_BYTES = 255;
const MAX_PATH_BYTES = 4096;

export interface UnpackLimits {
  max_bytes: number;
  max_files: number;
}

export interface Unpacking {
  into: string;
  /** A folder in `into` where the entries go, made when it is missing; '' for `into` itself. */
  below: string;
  limits: UnpackLimits;
  strip_prefix: string;
  umask: number;
}

export class Unpacker implements TarReceiver {
  /** Files and links written. */
  files = 0;
  /** Sum of the contents. */
  bytes = 0;
  /** Devices and FIFOs passed over. */
  skipped = 0;
  readonly #folders: Folders;
  readonly #limits: UnpackLimits;
  readonly #strip: string;
  readonly #below: string;
  readonly #links = new Map<string, string>();
  readonly #written = new Set<string>();
  readonly #umask: number;
  #made = 0;
  #fd: number | null = null;
  /** Of the entry at hand, for errors. */
  #name = '';

  constructor(o: Unpacking) {
    this.#folders = new Folders(o.into, () => this.#count());
    this.#limits = o.limits;
    this.#strip = o.strip_prefix;
    this.#below = o.below === '' ? '' : `${o.below}/`;
    this.#umask = o.umask;
    try {
      this.#folders.at(o.below);
    } catch (error) {
      this.#folders.close();
      throw explain(error, o.below);
    }
  }

  entry(entry: TarEntry): void {
    this.#name = entry.name;
    const path = this.#place(entry);
    if (path === null) return;
    try {
      this.#make(path, entry);
    } catch (error) {
      throw explain(error, entry.name);
    }
  }

  data(piece: Buffer): void {
    if (this.#fd === null) return;
    try {
      for (let done = 0; done < piece.length; ) done += writeSync(this.#fd, piece, done);
    } catch (error) {
      throw explain(error, this.#name);
    }
  }

  entryEnd(): void {
    if (this.#fd !== null) closeSync(this.#fd);
    this.#fd = null;
  }

  /** Makes the links. Call once, after the last entry. */
  finish(): void {
    for (const [path, target] of this.#links) {
      try {
        replace(this.#folders.entry(path), path, (at) => symlinkSync(target, at));
      } catch (error) {
        throw explain(error, path);
      }
    }
  }

  close(): void {
    this.entryEnd();
    this.#folders.close();
  }

  #make(path: string, entry: TarEntry): void {
    switch (entry.type) {
      case 'dir':
        this.#folders.at(path);
        this.#links.delete(path);
        return;
      case 'device':
        this.skipped++;
        return;
      case 'file':
        this.#file(path, entry);
        break;
      case 'symlink':
        checkTarget(entry);
        this.#links.set(path, entry.link);
        this.#written.delete(path);
        break;
      case 'hardlink':
        this.#hardLink(path, entry);
        break;
    }
    this.files++;
    this.#count();
  }

  #file(path: string, entry: TarEntry): void {
    this.bytes += entry.size;
    if (this.bytes > this.#limits.max_bytes) throw tooLarge(this.#limits);
    const mode = entry.mode & 0o100 ? 0o755 : 0o644;
    this.#fd = replace(this.#folders.entry(path), path, (at) => openSync(at, CREATE, mode));
    if (mode & this.#umask) fchmodSync(this.#fd, mode);
    this.#written.add(path);
    this.#links.delete(path);
  }

  #hardLink(path: string, entry: TarEntry): void {
    const target = this.#inPrefix(cleanName(entry.link, entry.name));
    if (target === null || !this.#written.has(target)) {
      throw invalidArchive(
        `The archive entry ${quote(entry.name)} is a hard link to something outside the archive`,
      );
    }
    if (target === path) return;
    replace(this.#folders.entry(path), path, (at) => linkSync(this.#folders.entry(target), at));
    this.#written.add(path);
    this.#links.delete(path);
  }

  /** Where an entry goes, relative to the root; null for the root itself and for what is outside the prefix. */
  #place(entry: TarEntry): string | null {
    return this.#inPrefix(cleanName(entry.name, entry.name));
  }

  #inPrefix(path: string): string | null {
    if (path === '') return null;
    if (!path.startsWith(this.#strip) || path.length === this.#strip.length) return null;
    return this.#below + path.slice(this.#strip.length);
  }

  #count(): void {
    this.#made++;
    if (this.#made > this.#limits.max_files) throw tooLarge(this.#limits);
  }
}

/** The name without './' and '//'. @throws KilnError INVALID_ARCHIVE when it could leave the root. */
function cleanName(name: string, entry: string): string {
  const refuse = (why: string) => invalidArchive(`The archive entry ${quote(entry)} ${why}`);
  if (name.startsWith('/')) throw refuse('has an absolute path');
  if (name.includes('\0')) throw refuse('has a NUL in its path');
  if (Buffer.byteLength(name) > MAX_PATH_BYTES) throw refuse('has a path that is too long');
  const segments = name.split('/').filter((segment) => segment !== '' && segment !== '.');
  for (const segment of segments) {
    if (segment === '..') throw refuse('leaves the folder');
    if (Buffer.byteLength(segment) > MAX_NAME_BYTES) throw refuse('has a name that is too long');
  }
  return segments.join('/');
}

function checkTarget(entry: TarEntry): void {
  const bad =
    entry.link === '' || entry.link.includes('\0') || Buffer.byteLength(entry.link) >= MAX_PATH_BYTES;
  if (bad) throw invalidArchive(`The archive entry ${quote(entry.name)} is a link without a valid target`);
}

/** Makes something new at a place; a file or link already there goes first (the last one of a name wins). */
function replace<T>(at: string, path: string, make: (at: string) => T): T {
  try {
    return make(at);
  } catch (error) {
    if (errno(error) !== 'EEXIST') throw error;
  }
  try {
    unlinkSync(at);
  } catch (error) {
    if (errno(error) !== 'EISDIR' && errno(error) !== 'EPERM') throw error;
    removeEmptyFolder(at, path);
  }
  return make(at);
}

function removeEmptyFolder(at: string, path: string): void {
  try {
    rmdirSync(at);
  } catch {
    throw invalidArchive(`The archive entry ${quote(path)} would replace a folder that is not empty`);
  }
}

function tooLarge(limits: UnpackLimits): KilnError {
  return new KilnError(
    'SOURCE_TOO_LARGE',
    `The archive unpacks to more than the limit (${limits.max_bytes.toLocaleString('en')} bytes, ` +
      `${limits.max_files.toLocaleString('en')} files and folders). Leave out what is not needed, or raise the limit.`,
    { details: { ...limits } },
  );
}

function explain(error: unknown, name: string): unknown {
  const code = errno(error);
  if (error instanceof KilnError || code === '') return error;
  if (isOtherKind(error) || code === 'EEXIST') {
    return invalidArchive(`The archive entry ${quote(name)} goes through a file or link that is in its way`);
  }
  if (code === 'ENAMETOOLONG')
    return invalidArchive(`The archive entry ${quote(name)} has a path that is too long`);
  return new KilnError(
    'STORAGE_FAILED',
    `Unpacking ${quote(name)} failed (${code}). Check free disk space (kiln gc) and send it again.`,
    { cause: error },
  );
}

export { tooLarge as archiveTooLarge };
