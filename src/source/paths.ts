import { constants } from 'node:fs';
import { type FileHandle, lstat, open, readlink, realpath } from 'node:fs/promises';
import { dirname, join, posix } from 'node:path';
import { KilnError } from '../domain/errors.ts';
import { errno } from './tree.ts';

const MAX_PATH_BYTES = 4096;
const MAX_NAME_BYTES = 255;
/** What a user calls the root of a workspace. */
const WORKSPACE = '/workspace';

/**
 * Maps a user's path (`/workspace/a`, `a`, `./a`) to a path inside `root`, links on the way resolved as far as the
 * path exists. The answer is true at this moment; use `openInside` where code in the workspace may be racing us.
 * @throws KilnError FORBIDDEN_PATH when the path leaves the root, by name or through a link, or cannot be a path
 */
export async function resolveInside(root: string, user_path: string): Promise<string> {
  const relative = relativePath(user_path);
  const real_root = await realpath(root);
  const wanted = join(real_root, relative);
  const rest: string[] = [];
  for (let at = wanted; at !== real_root; at = dirname(at)) {
    if (await exists(at, user_path)) {
      const real = await realpath(at).catch(() => refuse(user_path, 'goes through a broken link'));
      if (real !== real_root && !real.startsWith(`${real_root}/`))
        refuse(user_path, 'leaves the workspace through a link');
      return join(real, ...rest);
    }
    rest.unshift(posix.basename(at));
  }
  return wanted;
}

/**
 * Opens a file inside `root` (flags of open(2)) such that nothing outside can be reached, not even by code that swaps
 * folders for links meanwhile: the folder is opened first, checked by what it really is, and the file opened
 * below that descriptor without following a link. Close the handle.
 * @throws KilnError FORBIDDEN_PATH; other errors are those of open(2)
 */
export async function openInside(
  root: string,
  user_path: string,
  flags: number,
  mode = 0o644,
): Promise<FileHandle> {
  const path = await resolveInside(root, user_path);
  const real_root = await realpath(root);
  if (path === real_root) return refuse(user_path, 'is the workspace itself, not a file');
  const folder = await open(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    const address = `/proc/self/fd/${folder.fd}`;
    const really = await readlink(address).catch(() => null);
    if (really !== null && really !== real_root && !really.startsWith(`${real_root}/`)) {
      refuse(user_path, 'leaves the workspace through a link');
    }
    const base = really === null ? dirname(path) : address; // no /proc: not Linux, nobody hostile shares the tree
    // NONBLOCK, or opening a FIFO would wait for its other end for ever.
    const safe = constants.O_NOFOLLOW | constants.O_NONBLOCK;
    return await open(`${base}/${posix.basename(path)}`, flags | safe, mode).catch((error) => {
      if (errno(error) === 'ELOOP') refuse(user_path, 'has become a link');
      throw error;
    });
  } finally {
    await folder.close();
  }
}

/** Relative to the root, normalised, '' for the root itself. */
function relativePath(user_path: string): string {
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

async function exists(path: string, user_path: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch (error) {
    if (errno(error) === 'ENOENT' || errno(error) === 'ENOTDIR') return false;
    return refuse(user_path, `cannot be looked up (${errno(error)})`);
  }
}

function refuse(user_path: string, why: string): never {
  throw new KilnError(
    'FORBIDDEN_PATH',
    `The path ${JSON.stringify(user_path)} ${why}. Use a path inside ${WORKSPACE}.`,
  );
}
