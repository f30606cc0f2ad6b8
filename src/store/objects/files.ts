/**
 * Objects as files. An object is written under a temporary name on the same file system, flushed, and renamed to its
 * key, and then the folder is flushed: it is there whole or not at all, also after the power went.
 */
import { constants, createReadStream, createWriteStream, type Dirent, type Stats } from 'node:fs';
import { copyFile, mkdir, open, readdir, rename, rm, stat, unlink } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { KilnError } from '../../domain/errors.ts';
import { areSameBytes, isWhatKeySays } from './content.ts';
import type { ObjectInfo, ObjectStore } from './port.ts';

const TEMPORARY = '.tmp';
const MAX_KEY_LENGTH = 200;
/** One or more folders and a name; no segment starts with a dot, so neither '..' nor the temporary folder is a key. */
const KEY = /^[a-z0-9_-][a-z0-9._-]*(\/[a-z0-9_-][a-z0-9._-]*)+$/;

/**
 * A store in `dir`, made when missing. `sweepTemp` removes what crashed writers left and says how much; what this
 * store is writing at the moment stays. One engine at a time uses a folder.
 * @throws from every method KilnError STORAGE_FAILED, or ARTIFACT_GONE from `get`; a malformed key is a TypeError
 */
export function fileObjectStore(dir: string): ObjectStore & { sweepTemp(): Promise<number> } {
  return new FileObjectStore(resolve(dir));
}

class FileObjectStore implements ObjectStore {
  readonly #dir: string;
  readonly #writing = new Set<string>();
  #next = 0;

  constructor(dir: string) {
    this.#dir = dir;
  }

  put(key: string, body: AsyncIterable<Uint8Array>): Promise<{ size_bytes: number; existed: boolean }> {
    const path = this.#path(key);
    return storing(`store ${key}`, async () => {
      const there = await statOrNull(path);
      if (there && (await isWhatKeySays(key, path))) {
        await closeBody(body);
        return { size_bytes: there.size, existed: true };
      }
      return this.#throughTemporary(async (temporary) => {
        await pipeline(body, createWriteStream(temporary, { flags: 'wx', mode: 0o600 }));
        return this.#settle(key, temporary);
      });
    });
  }

  putFile(key: string, from: string): Promise<{ size_bytes: number; existed: boolean }> {
    this.#path(key);
    return storing(`store ${key}`, async () => {
      try {
        return await this.#settle(key, from);
      } catch (error) {
        if (codeOf(error) !== 'EXDEV') throw error;
      }
      return this.#throughTemporary(async (temporary) => {
        await copyFile(from, temporary, constants.COPYFILE_EXCL);
        const put = await this.#settle(key, temporary);
        await unlink(from);
        return put;
      });
    });
  }

  head(key: string): Promise<ObjectInfo | null> {
    const path = this.#path(key);
    return storing(`look up ${key}`, async () => {
      const found = await statOrNull(path);
      return found && { key, size_bytes: found.size, modified_at: found.mtime };
    });
  }

  get(key: string, range?: { start: number; end: number }): Promise<Readable> {
    const path = this.#path(key);
    if (range && !(range.start >= 0 && range.end >= range.start)) {
      throw new TypeError(`not a byte range: ${range.start} to ${range.end}`);
    }
    return storing(`read ${key}`, async () => {
      const file = await open(path, 'r').catch((error) => {
        if (codeOf(error) !== 'ENOENT') throw error;
        throw new KilnError('ARTIFACT_GONE', `${key} is not stored any more. Publish again to make it anew.`);
      });
      if (range?.start === range?.end && range) {
        await file.close();
        return Readable.from([]);
      }
      const bounds = range ? { start: range.start, end: range.end - 1 } : {};
      return createReadStream('', { fd: file, highWaterMark: 256 * 1024, ...bounds });
    });
  }

  localPath(key: string): string {
    return this.#path(key);
  }

  delete(key: string): Promise<void> {
    const path = this.#path(key);
    return storing(`delete ${key}`, () => rm(path, { force: true }));
  }

  async *list(prefix: string): AsyncIterable<ObjectInfo> {
    const slash = prefix.lastIndexOf('/');
    const folder = slash < 0 ? '' : prefix.slice(0, slash);
    if (folder !== '' && !KEY.test(`${folder}/x`)) return;
    yield* this.#listFolder(folder, prefix);
  }

  async sweepTemp(): Promise<number> {
    const folder = join(this.#dir, TEMPORARY);
    const left = (await entriesOf(folder)).map((entry) => join(folder, entry.name));
    const stale = left.filter((path) => !this.#writing.has(path));
    await Promise.all(stale.map((path) => rm(path, { recursive: true, force: true })));
    return stale.length;
  }

  async *#listFolder(folder: string, prefix: string): AsyncIterable<ObjectInfo> {
    const entries = await storing(`list ${prefix}`, () => entriesOf(join(this.#dir, folder)));
    for (const entry of entries) {
      const key = folder === '' ? entry.name : `${folder}/${entry.name}`;
      if (entry.name.startsWith('.')) continue;
      if (entry.isDirectory()) {
        if (`${key}/`.startsWith(prefix) || prefix.startsWith(`${key}/`))
          yield* this.#listFolder(key, prefix);
      } else if (key.startsWith(prefix) && KEY.test(key)) {
        const info = await this.head(key);
        if (info) yield info;
      }
    }
  }

  #path(key: string): string {
    if (key.length > MAX_KEY_LENGTH || !KEY.test(key))
      throw new TypeError(`not an object key: ${JSON.stringify(key)}`);
    return join(this.#dir, key);
  }

  async #throughTemporary<T>(write: (temporary: string) => Promise<T>): Promise<T> {
    const folder = join(this.#dir, TEMPORARY);
    await mkdir(folder, { recursive: true });
    const temporary = join(folder, `${process.pid}-${process.hrtime.bigint()}-${this.#next++}`);
    this.#writing.add(temporary);
    try {
      return await write(temporary);
    } finally {
      await rm(temporary, { force: true });
      this.#writing.delete(temporary);
    }
  }

  /**
   * A finished file becomes the object, unless that is there and whole. Two tars of the same content may be compressed
   * differently: the first one stays then. A damaged object is replaced; who reads it at the moment goes on with what
   * was opened.
   */
  async #settle(key: string, finished: string): Promise<{ size_bytes: number; existed: boolean }> {
    const path = this.#path(key);
    const there = await statOrNull(path);
    if (there && ((await areSameBytes(finished, path)) || (await isWhatKeySays(key, path)))) {
      await rm(finished, { force: true });
      return { size_bytes: there.size, existed: true };
    }
    return this.#publish(finished, path);
  }

  /** The one place where an object comes into being. */
  async #publish(finished: string, path: string): Promise<{ size_bytes: number; existed: false }> {
    const folder = dirname(path);
    const made = await mkdir(folder, { recursive: true });
    const size_bytes = await flush(finished);
    await rename(finished, path);
    await flush(folder);
    if (made) await flush(dirname(made));
    return { size_bytes, existed: false };
  }
}

/** fsync of a file or folder; answers its size. */
async function flush(path: string): Promise<number> {
  const file = await open(path, 'r');
  try {
    await file.sync();
    return (await file.stat()).size;
  } finally {
    await file.close();
  }
}

async function statOrNull(path: string): Promise<Stats | null> {
  try {
    return await stat(path);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return null;
    throw error;
  }
}

/** Sorted by name, so that lists are in the order of the keys. */
async function entriesOf(folder: string): Promise<Dirent[]> {
  try {
    const entries = await readdir(folder, { withFileTypes: true });
    return entries.sort((a, b) => (sortName(a) < sortName(b) ? -1 : 1));
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return [];
    throw error;
  }
}

/** 'a/b' comes after 'a-b' as a key, so a folder sorts with its slash. */
function sortName(entry: Dirent): string {
  return entry.isDirectory() ? `${entry.name}/` : entry.name;
}

/** Lets the producer of a body that nobody needs stop. */
async function closeBody(body: AsyncIterable<Uint8Array>): Promise<void> {
  if (body instanceof Readable) body.destroy();
  else await body[Symbol.asyncIterator]().return?.();
}

async function storing<T>(what: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    if (error instanceof KilnError || codeOf(error) === '') throw error;
    const advice =
      codeOf(error) === 'ENOSPC'
        ? 'The disk is full: free some space (kiln gc) and try again.'
        : 'Check the disk.';
    throw new KilnError('STORAGE_FAILED', `Could not ${what} (${codeOf(error)}). ${advice}`, {
      cause: error,
    });
  }
}

function codeOf(error: unknown): string {
  return (error as NodeJS.ErrnoException | null)?.code ?? '';
}
