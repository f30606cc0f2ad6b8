import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
} from 'node:fs';
import { KilnError } from '../domain/errors.ts';
import type { Exclusion, Verdict } from './exclude.ts';
import { errno, Folders, isGone, isOtherKind, TreeUnreadable } from './tree.ts';

/** The names in a tree, links not followed. What they are is asked later, of many at once (stat.ts). */
export interface Walk {
  /** Relative to the root. */
  paths: string[];
  /** Those of them that are folders. */
  folders: Set<string>;
  /** Top-most paths left out, at most 100 of each kind; folders end in '/'. */
  left_out: string[];
  secrets_left_out: string[];
  /** Folders among the paths that were not looked into, because the walk was to be shared. */
  unread: string[];
}

export interface WalkOptions {
  max_entries: number;
  /** Folders to start with; the root when not given. */
  from?: string[];
  /** Stop when there are so many folders left to look into: others go on there. */
  share_at?: number | null;
}

const MAX_NAMED = 100;
const MAX_RULES_BYTES = 64 * 1024;

/**
 * Walks the tree a folder at a time; the caller decides when to pause. Sockets, devices and FIFOs are passed over.
 * A folder that vanishes is treated as absent.
 * @throws TreeUnreadable for a folder or a name that cannot be read, KilnError SOURCE_TOO_LARGE over `max_entries`.
 */
export function* walkSteps(
  root: string,
  exclusion: Exclusion,
  { max_entries, from = [''], share_at = null }: WalkOptions,
): Generator<undefined, Walk, undefined> {
  const walk: Walk = { paths: [], folders: new Set(), left_out: [], secrets_left_out: [], unread: [] };
  const folders = new Folders(root);
  const pending = [...from];
  try {
    while (pending.length > 0 && !(share_at !== null && pending.length >= share_at)) {
      // To be shared: the top of the tree first, so that the shares are even. Else depth first, which keeps few open.
      const folder = share_at === null ? pending.pop()! : pending.shift()!;
      for (const { path, is_dir } of readFolder(folders, folder)) {
        const verdict = exclusion(path, is_dir);
        if (verdict) {
          noteLeftOut(walk, path, is_dir, verdict);
          continue;
        }
        walk.paths.push(path);
        if (walk.paths.length > max_entries) throw tooManyFiles(max_entries);
        if (!is_dir) continue;
        walk.folders.add(path);
        pending.push(path);
      }
      yield;
    }
  } finally {
    folders.close();
  }
  walk.unread = pending;
  return walk;
}

interface Found {
  path: string;
  is_dir: boolean;
}

/** In the order of the names, so that what is named as left out is the same each time. */
function readFolder(folders: Folders, folder: string): Found[] {
  try {
    const at = folders.at(folder);
    const found: Found[] = [];
    for (const entry of readdirSync(at, { withFileTypes: true })) {
      const is_dir = entry.isDirectory();
      if (!is_dir && !entry.isFile() && !entry.isSymbolicLink()) continue;
      const path = folder === '' ? entry.name : `${folder}/${entry.name}`;
      if (entry.name.includes('\ufffd')) refuseBadName(`${at}/${entry.name}`, path);
      found.push({ path, is_dir });
    }
    return found.sort((a, b) => (a.path < b.path ? -1 : 1));
  } catch (error) {
    if (error instanceof TreeUnreadable) throw error;
    if (folder !== '' && (isGone(error) || isOtherKind(error))) return [];
    throw new TreeUnreadable(folder || '.', `cannot be read (${errno(error)})`);
  }
}

/** Node turns bytes that are not UTF-8 into U+FFFD; such a name could not be opened, and would silently be missing. */
function refuseBadName(at: string, path: string): void {
  if (!lstatSync(at, { throwIfNoEntry: false }))
    throw new TreeUnreadable(path, 'has a name that is not valid UTF-8');
}

function noteLeftOut(walk: Walk, path: string, is_dir: boolean, verdict: Exclude<Verdict, null>): void {
  const list = verdict === 'secret' ? walk.secrets_left_out : walk.left_out;
  if (list.length < MAX_NAMED) list.push(is_dir ? `${path}/` : path);
}

export function tooManyFiles(max_entries: number): KilnError {
  return new KilnError(
    'SOURCE_TOO_LARGE',
    `The source holds more than ${max_entries.toLocaleString('en')} files and folders, which is the limit. ` +
      'Leave out what the build does not need with a .kilnignore file, or raise the limit.',
    { details: { max_files: max_entries } },
  );
}

/** The root itself may be a link; below it none is followed. */
export function realRoot(root: string): string {
  try {
    return realpathSync(root);
  } catch (error) {
    throw new TreeUnreadable(root, isGone(error) ? 'does not exist' : `cannot be read (${errno(error)})`);
  }
}

/** The text of `.kilnignore`; null when there is none. */
export function readRules(root: string): string | null {
  let fd: number;
  try {
    fd = openSync(`${root}/.kilnignore`, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (isGone(error) || isOtherKind(error)) return null;
    throw new TreeUnreadable('.kilnignore', `cannot be read (${errno(error)})`);
  }
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) return null;
    if (stat.size > MAX_RULES_BYTES) {
      throw new TreeUnreadable('.kilnignore', `is larger than ${MAX_RULES_BYTES / 1024} KiB`);
    }
    return readFileSync(fd, 'utf8');
  } finally {
    closeSync(fd);
  }
}
