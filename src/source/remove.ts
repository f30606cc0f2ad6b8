/**
 * Removing what code nobody has read may be changing at the same time. A removal by path looks at a folder and then
 * goes into it, and in between a link may have taken its place; then it is the link's target that is emptied. So
 * what is to go is first moved to where that code sees nothing, and taken apart there one level at a time: folders
 * in folders are moved up, beside the others, where nobody but us can put anything in their place.
 */
import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { chmod, lstat, mkdir, open, readdir, rename, rmdir, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { UPLOAD_PREFIX } from '../domain/sandbox.ts';
import { errno, type Folders, isGone, isOtherKind } from './tree.ts';

/** Entries of one folder removed at the same time. */
const AT_ONCE = 32;
/** Code that still has a folder open can go on filling it. */
const MAX_ROUNDS = 20;

/** A new folder beside the workspace, which no sandbox sees. One found at start is swept. */
export async function makeBeside(root: string): Promise<string> {
  const dir = join(dirname(root), `${UPLOAD_PREFIX}${randomBytes(6).toString('hex')}`);
  await mkdir(dir, { mode: 0o700 });
  return dir;
}

/**
 * Removes an entry of a workspace with all that is in it; a link goes itself. Once it is out of the workspace it counts
 * as removed: should anything of it resist, the next start of the engine takes it away.
 * @throws errors of rename(2)
 */
export async function removeInside(folders: Folders, rel: string): Promise<void> {
  const beside = await makeBeside(folders.root);
  try {
    await moveOut(folders.entry(rel), join(beside, '0'));
  } finally {
    await purge(beside).catch(() => {});
  }
}

/** Renames, also a folder that its owner may not write to (Go's module cache is full of them). */
export async function moveOut(from: string | Buffer, to: string): Promise<void> {
  try {
    await rename(from, to);
  } catch (error) {
    if (errno(error) !== 'EACCES') throw error;
    await makeWritable(from);
    await rename(from, to);
  }
}

/**
 * Removes `dir` and everything in it. `dir` itself lies where only the engine puts anything; what is below may be
 * changing, and what is linked to stays.
 * @throws Error when something keeps filling it
 */
export async function purge(dir: string): Promise<void> {
  for (let round = 1; ; round++) {
    const pending = await readdir(dir).catch((error) => {
      if (isGone(error)) return null;
      throw error;
    });
    if (pending === null) return;
    for (let name = pending.pop(); name !== undefined; name = pending.pop())
      pending.push(...(await takeApart(dir, name)));
    try {
      return await rmdir(dir);
    } catch (error) {
      if (isGone(error)) return;
      if (!isNotEmpty(error) || round === MAX_ROUNDS) throw error;
    }
  }
}

/** Removes an entry of `dir`; folders that were in it become entries of `dir`, and their names are the answer. */
async function takeApart(dir: string, name: string): Promise<string[]> {
  const at = join(dir, name);
  const stats = await lstat(at).catch(() => null);
  if (stats === null) return [];
  if (!stats.isDirectory()) {
    await unlink(at).catch(ignoreGone);
    return [];
  }
  if ((stats.mode & 0o700) !== 0o700) await chmod(at, stats.mode | 0o700);
  const moved: string[] = [];
  const names = await readdir(at, { encoding: 'buffer' }); // any bytes may be a name
  for (let first = 0; first < names.length; first += AT_ONCE)
    await Promise.all(
      names.slice(first, first + AT_ONCE).map(async (child) => {
        const from = Buffer.concat([Buffer.from(`${at}/`), child]);
        try {
          await unlink(from);
        } catch (error) {
          if (isGone(error)) return;
          if (errno(error) !== 'EISDIR' && errno(error) !== 'EPERM') throw error;
          const to = `gone-${randomBytes(8).toString('hex')}`;
          await moveOut(from, join(dir, to)).then(() => moved.push(to), ignoreGone);
        }
      }),
    );
  await rmdir(at).catch((error) => {
    if (!isNotEmpty(error)) ignoreGone(error); // filled again meanwhile: the next round sees it
  });
  return moved;
}

const isNotEmpty = (error: unknown) => ['ENOTEMPTY', 'EEXIST'].includes(errno(error));

function ignoreGone(error: unknown): void {
  if (!isGone(error)) throw error;
}

/** Linux opens with it what may not even be read. */
const O_PATH = process.platform === 'linux' ? 0o10000000 : constants.O_RDONLY;

/** Gives a folder's owner all rights to it, and nothing to what a link leads to. */
async function makeWritable(folder: string | Buffer): Promise<void> {
  let handle: Awaited<ReturnType<typeof open>>;
  try {
    handle = await open(folder, O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  } catch (error) {
    if (isGone(error) || isOtherKind(error)) return;
    throw error;
  }
  try {
    if (process.platform === 'linux') await chmod(`/proc/self/fd/${handle.fd}`, 0o700);
    else await handle.chmod(0o700);
  } finally {
    await handle.close();
  }
}
