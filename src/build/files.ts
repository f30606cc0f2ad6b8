/**
 * What planning may see of a source: a small, synchronous, read-only port. Paths are relative, with forward
 * slashes; '.' is the root. Whatever is missing, unreadable, too deep or outside the root simply is not there.
 */
import {
  closeSync,
  constants,
  type Dirent,
  fstatSync,
  lstatSync,
  opendirSync,
  openSync,
  readSync,
  realpathSync,
} from 'node:fs';
import { join, sep } from 'node:path';

export interface SourceEntry {
  name: string;
  type: 'file' | 'dir' | 'other';
}

export interface SourceFiles {
  /** Entries of a folder, sorted by name; empty when there is no such folder. */
  list(dir: string): SourceEntry[];
  /** The first `max_bytes` bytes (default 1 MiB) as UTF-8 without a byte-order mark; null when there is no such file. */
  read(path: string, max_bytes?: number): string | null;
  /** Is there a file or a folder of this name? */
  exists(path: string): boolean;
}

const MAX_READ_BYTES = 1024 * 1024;
/** Entries kept of one folder, and looked at in one source: a plan is decided by few files, near the top. */
const MAX_FOLDER_ENTRIES = 20_000;
const MAX_ENTRIES = 100_000;
const MAX_PATH_PARTS = 32;

/** 'a/./b//c' as 'a/b/c', '' and './' as '.'; null for a path that leaves the root or cannot be one. */
export function cleanPath(path: string): string | null {
  if (path.includes('\0') || path.startsWith('/')) return null;
  const parts: string[] = [];
  for (const part of path.split('/')) {
    if (part === '' || part === '.') continue;
    if (part !== '..') parts.push(part);
    else if (parts.pop() === undefined) return null;
  }
  if (parts.length > MAX_PATH_PARTS) return null;
  return parts.join('/') || '.';
}

/** `path` as seen from the source root when it is written relative to `dir`; null when it leaves the root. */
export function joinPath(dir: string, path: string): string | null {
  return path.startsWith('/') ? null : cleanPath(`${dir}/${path}`);
}

const byName = (a: SourceEntry, b: SourceEntry) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0);

function remembered<K, V>(of: (key: K) => V): (key: K) => V {
  const known = new Map<K, V>();
  return (key) => {
    let value = known.get(key);
    if (value === undefined && !known.has(key)) {
      value = of(key);
      known.set(key, value);
    }
    return value as V;
  };
}

function readWhole(real: string, max_bytes: number): string | null {
  let fd: number;
  try {
    // O_NONBLOCK: opening a named pipe must not wait for a writer. O_NOFOLLOW: the path was resolved already.
    fd = openSync(real, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW);
  } catch {
    return null;
  }
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) return null;
    const buffer = Buffer.alloc(Math.min(stat.size, max_bytes));
    let length = 0;
    while (length < buffer.length) {
      const got = readSync(fd, buffer, length, buffer.length - length, null);
      if (got === 0) break;
      length += got;
    }
    return buffer.toString('utf8', 0, length).replace(/^\uFEFF/, '');
  } catch {
    return null;
  } finally {
    closeSync(fd);
  }
}

/** How a tree on disk is reached. `at` is what `follow` has answered. All of them may throw: then it is not there. */
export interface Reach {
  /** Where a clean path leads, every link on the way resolved. Throws when that is outside. */
  follow(path: string): string;
  /** For the next call only: the folder; the entry itself. */
  folder(at: string): string;
  entry(at: string): string;
}

/** The files under `root`, a tree that nobody changes meanwhile (else see `reachedFiles`). */
export function diskFiles(root: string): SourceFiles {
  const top = realpathSync.native(root);
  const same = (at: string) => at;
  const follow = (path: string) => {
    const real = realpathSync.native(join(top, path));
    if (real === top || real.startsWith(top.endsWith(sep) ? top : top + sep)) return real;
    throw new Error(`${path} leads out of the source`);
  };
  return reachedFiles({ follow, folder: same, entry: same });
}

/**
 * The files of a tree that is reached in a way of its own. A link is followed only while it stays inside; a link to a
 * folder is listed as 'other', so no walk can run in a circle. Answers are remembered: make a new one for each plan.
 */
export function reachedFiles(reach: Reach): SourceFiles {
  let budget = MAX_ENTRIES;

  const resolve = remembered((path: string): string | null => {
    const clean = cleanPath(path);
    if (clean === null) return null;
    return orNull(() => reach.follow(clean));
  });
  const look = (at: string) => orNull(() => lstatSync(reach.entry(at)));

  const typeOf = (path: string, entry: Dirent): SourceEntry['type'] => {
    if (entry.isFile()) return 'file';
    if (entry.isDirectory()) return 'dir';
    if (!entry.isSymbolicLink()) return 'other';
    const target = resolve(path);
    return target !== null && look(target)?.isFile() ? 'file' : 'other';
  };

  const list = remembered((dir: string): SourceEntry[] => {
    const at = resolve(dir);
    const found: Dirent[] = [];
    if (at === null) return [];
    try {
      using folder = opendirSync(reach.folder(at));
      for (let entry = folder.readSync(); entry !== null; entry = folder.readSync()) {
        if (found.length >= MAX_FOLDER_ENTRIES || budget-- <= 0) break;
        found.push(entry);
      }
    } catch {
      // Unreadable, or no folder: as if it were not there.
    }
    return found
      .map((entry) => ({ name: entry.name, type: typeOf(`${dir}/${entry.name}`, entry) }))
      .sort(byName);
  });

  const readFirst = remembered((path: string) => {
    const at = resolve(path);
    return at === null ? null : orNull(() => readWhole(reach.entry(at), MAX_READ_BYTES));
  });

  return {
    list,
    read: (path, max_bytes = MAX_READ_BYTES) => {
      const text = readFirst(path);
      return text === null || text.length <= max_bytes ? text : text.slice(0, max_bytes);
    },
    exists: (path) => {
      const at = resolve(path);
      return at !== null && look(at) !== null;
    },
  };
}

function orNull<T>(look: () => T): T | null {
  try {
    return look();
  } catch {
    return null;
  }
}

/**
 * Files by path, as text or as what gives the text when it is asked for: `memoryFiles({ 'package.json': '{}' })`.
 * Paths that are too deep or outside are left out.
 */
export function memoryFiles(contents: Record<string, string | (() => string)>): SourceFiles {
  const texts = new Map<string, string | (() => string)>();
  const folders = new Map<string, Map<string, SourceEntry>>([['.', new Map()]]);
  for (const [path, text] of Object.entries(contents)) {
    const clean = cleanPath(path);
    if (clean === null || clean === '.') continue;
    texts.set(clean, text);
    const parts = clean.split('/');
    for (let depth = 0; depth < parts.length; depth++) {
      const dir = parts.slice(0, depth).join('/') || '.';
      const name = parts[depth]!;
      if (!folders.has(dir)) folders.set(dir, new Map());
      folders.get(dir)!.set(name, { name, type: depth === parts.length - 1 ? 'file' : 'dir' });
    }
  }
  return {
    list: (dir) => [...(folders.get(cleanPath(dir) ?? '')?.values() ?? [])].sort(byName),
    read: (path, max_bytes = MAX_READ_BYTES) => {
      const text = texts.get(cleanPath(path) ?? '');
      return (typeof text === 'function' ? text() : text)?.slice(0, max_bytes) ?? null;
    },
    exists: (path) => {
      const clean = cleanPath(path) ?? '';
      return texts.has(clean) || folders.has(clean);
    },
  };
}

/** The same without what `left_out` names: planning sees what a snapshot holds. */
export function withoutPaths(
  files: SourceFiles,
  left_out: (path: string, is_dir: boolean) => boolean,
): SourceFiles {
  const gone = remembered((path: string): boolean => {
    const clean = cleanPath(path);
    if (clean === null || clean === '.') return false;
    const slash = clean.lastIndexOf('/');
    const entry = files
      .list(slash < 0 ? '.' : clean.slice(0, slash))
      .find(({ name }) => name === clean.slice(slash + 1));
    return left_out(clean, entry?.type === 'dir');
  });
  return {
    list: (dir) =>
      gone(dir)
        ? []
        : files
            .list(dir)
            .filter(({ name, type }) => !left_out(cleanPath(`${dir}/${name}`) ?? name, type === 'dir')),
    read: (path, max_bytes) => (gone(path) ? null : files.read(path, max_bytes)),
    exists: (path) => !gone(path) && files.exists(path),
  };
}
