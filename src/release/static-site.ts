/** A stored static release, open for reading: the index of its tar in memory, the bytes by range. */
import { type FileHandle, open, stat } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { KilnError } from '../domain/errors.ts';
import type { ObjectStore } from '../store/objects/port.ts';

export interface StaticFile {
  /** Without a leading slash. */
  path: string;
  /** Where the file's bytes begin in the tar. */
  offset: number;
  size: number;
  /** Lower-case hex, of the file's bytes. */
  sha256: string;
}

export interface StaticSite {
  lookup(path: string): StaticFile | undefined;
  /** All bytes at once; for small files. Rejects when the stored object is shorter than its index says. */
  readAll(file: StaticFile): Promise<Buffer>;
  /** Bytes `start` (inclusive) to `end` (exclusive) of the file. Errors when the stored object is too short. */
  stream(file: StaticFile, start: number, end: number): Readable;
  /** Another file lies under one of its keys now: what was opened was found damaged, and stored anew. */
  isReplaced(): Promise<boolean>;
  /** What the index takes in memory, roughly. */
  memory_bytes: number;
  /** Readers must be done. */
  close(): Promise<void>;
}

const MAX_INDEX_BYTES = 128 * 1024 * 1024;
const CHUNK_BYTES = 256 * 1024;
/** Of a Map entry with its object and strings, measured with V8 13 on 200,000 files. */
const ENTRY_BYTES = 250;

/**
 * Opens a release for reading; its bytes never change, so it may be kept open for as long as it is used.
 * Rejects with KilnError ARTIFACT_GONE when an object is not there, STORAGE_FAILED when the index is not one.
 */
export async function openStaticSite(
  objects: ObjectStore,
  object_key: string,
  index_key: string,
): Promise<StaticSite> {
  const before = await marksOf(objects, object_key, index_key);
  const files = await readFileIndex(objects, index_key);
  const local = objects.localPath(object_key);
  const handle = local === null ? null : await openLocal(local, object_key);
  if (handle === null && (await objects.head(object_key)) === null) throw gone(object_key);

  const stream = (file: StaticFile, start: number, end: number): Readable => {
    const from = file.offset + start;
    const to = file.offset + end;
    const chunks = handle
      ? readLocal(handle, from, to)
      : readRemote(objects, object_key, from, Math.max(from, to));
    return Readable.from(chunks, { objectMode: false, highWaterMark: CHUNK_BYTES });
  };
  return {
    lookup: (path) => files.get(path),
    readAll: (file) =>
      handle ? readExactly(handle, file.offset, file.size) : buffer(stream(file, 0, file.size)),
    stream,
    isReplaced: async () => {
      const now = await marksOf(objects, object_key, index_key);
      return now.some((mark, at) => mark !== null && mark !== before[at]);
    },
    memory_bytes: memoryOf(files),
    close: async () => handle?.close(),
  };
}

/** Which files on disk the objects are; null for one that is not there, or that the store has no file of. */
function marksOf(objects: ObjectStore, ...keys: string[]): Promise<(string | null)[]> {
  return Promise.all(
    keys.map(async (key) => {
      const local = objects.localPath(key);
      const found = local === null ? null : await stat(local, { bigint: true }).catch(() => null);
      return found && `${found.dev}:${found.ino}:${found.birthtimeNs}`;
    }),
  );
}

/** The files of a static release by their path. Rejects like `openStaticSite`. */
export async function readFileIndex(
  objects: ObjectStore,
  index_key: string,
): Promise<Map<string, StaticFile>> {
  return parseIndex(await readIndex(objects, index_key), index_key);
}

async function readIndex(objects: ObjectStore, index_key: string): Promise<unknown> {
  const info = await objects.head(index_key);
  if (info === null) throw gone(index_key);
  if (info.size_bytes > MAX_INDEX_BYTES) throw unusable(index_key, 'it is too large');
  const text = (await buffer(await objects.get(index_key))).toString('utf8');
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw unusable(index_key, 'it is not JSON', cause);
  }
}

/** Only well-formed entries are taken: a path is relative, without empty, `.` or `..` segments. */
function parseIndex(json: unknown, index_key: string): Map<string, StaticFile> {
  const files = (json as { files?: unknown } | null)?.files;
  if (typeof files !== 'object' || files === null) throw unusable(index_key, 'it has no files');
  const found = new Map<string, StaticFile>();
  for (const [path, entry] of Object.entries(files)) {
    if (!isRelativePath(path) || !isEntry(entry)) throw unusable(index_key, 'an entry is malformed');
    found.set(path, { path, offset: entry.offset, size: entry.size, sha256: entry.sha256 });
  }
  return found;
}

function isRelativePath(path: string): boolean {
  return path.split('/').every((segment) => segment !== '' && segment !== '.' && segment !== '..');
}

function isEntry(entry: unknown): entry is Omit<StaticFile, 'path'> {
  const { offset, size, sha256 } = (entry ?? {}) as Partial<StaticFile>;
  return (
    Number.isSafeInteger(offset) &&
    offset! >= 0 &&
    Number.isSafeInteger(size) &&
    size! >= 0 &&
    typeof sha256 === 'string' &&
    /^[0-9a-f]{64}$/.test(sha256)
  );
}

function memoryOf(files: Map<string, StaticFile>): number {
  let bytes = 0;
  for (const path of files.keys()) bytes += ENTRY_BYTES + path.length;
  return bytes;
}

async function openLocal(local: string, object_key: string): Promise<FileHandle> {
  try {
    return await open(local, 'r');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') throw gone(object_key);
    throw new KilnError('STORAGE_FAILED', `Could not open ${object_key}; see the cause and retry.`, {
      cause,
    });
  }
}

async function readExactly(handle: FileHandle, position: number, size: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(size);
  let filled = 0;
  while (filled < size) {
    const { bytesRead } = await handle.read(bytes, filled, size - filled, position + filled);
    if (bytesRead === 0) throw tooShort();
    filled += bytesRead;
  }
  return bytes;
}

async function* readLocal(handle: FileHandle, from: number, to: number): AsyncGenerator<Buffer> {
  for (let at = from; at < to; at += CHUNK_BYTES) {
    yield await readExactly(handle, at, Math.min(CHUNK_BYTES, to - at));
  }
}

async function* readRemote(
  objects: ObjectStore,
  key: string,
  from: number,
  to: number,
): AsyncGenerator<Buffer> {
  if (from === to) return;
  let got = 0;
  for await (const chunk of await objects.get(key, { start: from, end: to })) {
    got += (chunk as Buffer).length;
    yield chunk as Buffer;
  }
  if (got !== to - from) throw tooShort();
}

function tooShort(): KilnError {
  return new KilnError(
    'STORAGE_FAILED',
    'A stored release is shorter than its index says; publish or promote again.',
  );
}

function gone(key: string): KilnError {
  return new KilnError('ARTIFACT_GONE', `The object ${key} is not in the store; publish again.`);
}

function unusable(key: string, why: string, cause?: unknown): KilnError {
  return new KilnError('STORAGE_FAILED', `The release index ${key} cannot be used: ${why}; publish again.`, {
    cause,
  });
}
