/** What a user calls a path of a workspace, and the ways to what it names that no link leads out of. */
import { constants, lstatSync, readlinkSync, type Stats } from 'node:fs';
import { type FileHandle, open, realpath } from 'node:fs/promises';
import { join, posix } from 'node:path';
import { KilnError } from '../domain/errors.ts';
import { errno, Folders, isGone, isOtherKind } from './tree.ts';

const MAX_PATH_BYTES = 4096;
const MAX_NAME_BYTES = 255;
/** As Linux has it for one path. */
const MAX_LINKS = 40;
/** What a user calls the root of a workspace. */
const WORKSPACE = '/workspace';

/**
 * A user's path (`/workspace/a`, `a`, `./a`) relative to the workspace and normalised, '' for the workspace itself.
 * It says nothing of what is there.
 * @throws KilnError FORBIDDEN_PATH when it leaves the workspace by name, or cannot be a path
 */
export function relativePath(user_path: string): string {
  if (user_path.includes('\0')) refuse(user_path.replaceAll('\0', '\\0'), 'contains a NUL');
  if (Buffer.byteLength(user_path) > MAX_PATH_BYTES) refuse(`${user_path.slice(0, 80)}…`, 'is too long');
  const normal = posix.normalize(user_path);
  let relative = normal;
  if (normal.startsWith('/')) {
    const is_workspace = normal === WORKSPACE || normal.startsWith(`${WORKSPACE}/`);
    if (!is_workspace) refuse(user_path, `is absolute; paths start with ${WORKSPACE} or are relative to it`);
    relative = normal.slice(WORKSPACE.length + 1);
  }
  if (relative === '..' || relative.startsWith('../')) refuse(user_path, 'leaves the workspace');
  for (const name of relative.split('/')) {
    if (Buffer.byteLength(name) > MAX_NAME_BYTES)
      refuse(`${user_path.slice(0, 80)}…`, 'has a name that is too long');
  }
  return relative === '.' ? '' : relative.replace(/\/$/, '');
}

/** The other way round: how users see what is at `relative`. */
export function shownPath(relative: string): string {
  return relative === '' ? WORKSPACE : `${WORKSPACE}/${relative}`;
}

/**
 * Opens the workspace at `root` for one piece of work, which reaches everything in it through `Folders` and uses them
 * one call after the other. With `create`, missing folders are made on the way.
 */
export async function insideWorkspace<T>(
  root: string,
  work: (folders: Folders) => Promise<T>,
  o: { create?: boolean } = {},
): Promise<T> {
  const folders = new Folders(await realpath(root), o.create ? () => {} : null);
  try {
    return await work(folders);
  } finally {
    folders.close();
  }
}

/**
 * Where a user's path leads, relative to the workspace: links on the way are resolved as far as the path exists, each
 * looked at through its own folder. Code in the workspace may make the answer stale at once: use it with `folders`,
 * which enter no link, and with nothing else.
 * @throws KilnError FORBIDDEN_PATH when the path leaves the workspace, by name or through a link, or cannot be a path
 */
export function followInside(folders: Folders, user_path: string): string {
  const pending = named(relativePath(user_path), false);
  let at: string[] = [];
  let links = 0;
  for (let next = pending.pop(); next; next = pending.pop()) {
    if (next.name === '' || next.name === '.') continue;
    if (next.name === '..') {
      if (at.pop() === undefined) refuse(user_path, 'leaves the workspace through a link');
      continue;
    }
    const rel = [...at, next.name].join('/');
    const found = look(() => lstatSync(folders.entry(rel)), user_path);
    if (found === null) {
      if (next.of_link) refuse(user_path, 'goes through a broken link');
      return [rel, ...pending.toReversed().map(({ name }) => name)].join('/');
    }
    if (!found.isSymbolicLink()) {
      at.push(next.name);
      continue;
    }
    if (++links > MAX_LINKS) refuse(user_path, 'goes through too many links');
    const target = look(() => readlinkSync(folders.entry(rel)), user_path);
    if (target === null) {
      pending.push(next); // no longer a link: once more
      continue;
    }
    const inside = target.startsWith('/') ? belowRoot(folders.root, target) : target;
    if (inside === null) return refuse(user_path, 'leaves the workspace through a link');
    if (target.startsWith('/')) at = [];
    pending.push(...named(inside, true));
  }
  return at.join('/');
}

/** The segments of a path, the first one last. */
function named(path: string, of_link: boolean): { name: string; of_link: boolean }[] {
  return path
    .split('/')
    .map((name) => ({ name, of_link }))
    .reverse();
}

function belowRoot(root: string, target: string): string | null {
  if (target === root) return '';
  return target.startsWith(`${root}/`) ? target.slice(root.length + 1) : null;
}

/** Null for what is not there, or no longer what it was. */
function look<T extends Stats | string>(at: () => T, user_path: string): T | null {
  try {
    return at();
  } catch (error) {
    if (isGone(error) || isOtherKind(error)) return null;
    return refuse(user_path, `cannot be looked up (${errno(error)})`);
  }
}

/**
 * Opens a file of the workspace (flags of open(2)) such that nothing outside can be reached, not even by code that
 * swaps folders for links meanwhile. Close the handle.
 * @throws KilnError FORBIDDEN_PATH; other errors are those of open(2)
 */
export async function openInside(
  folders: Folders,
  user_path: string,
  flags: number,
  mode = 0o644,
): Promise<FileHandle> {
  const rel = followInside(folders, user_path);
  if (rel === '') return refuse(user_path, 'is the workspace itself, not a file');
  // NONBLOCK, or opening a FIFO would wait for its other end for ever.
  const safe = constants.O_NOFOLLOW | constants.O_NONBLOCK;
  return await open(folders.entry(rel), flags | safe, mode).catch((error) => {
    if (errno(error) === 'ELOOP') refuse(user_path, 'has become a link');
    throw error;
  });
}

/**
 * Maps a path to one inside `root`, links on the way resolved as far as it exists. Only for a tree at rest (a build
 * that has ended, an archive unpacked by us): nothing holds anybody to the answer, so where code may be running in the
 * tree it is `insideWorkspace` and `followInside` that keep to it.
 * @throws KilnError FORBIDDEN_PATH when the path leaves the root, by name or through a link, or cannot be a path
 */
export async function resolveAtRest(root: string, user_path: string): Promise<string> {
  return insideWorkspace(root, async (folders) => join(folders.root, followInside(folders, user_path)));
}

function refuse(user_path: string, why: string): never {
  throw new KilnError(
    'FORBIDDEN_PATH',
    `The path ${JSON.stringify(user_path)} ${why}. Use a path inside ${WORKSPACE}.`,
  );
}
