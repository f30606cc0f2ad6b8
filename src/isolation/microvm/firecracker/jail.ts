import {
  chmod,
  chown,
  constants,
  copyFile,
  link,
  mkdir,
  realpath,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { VmSpec } from '../hypervisor.ts';

/** A file as the VM is to find it in its folder. */
export interface PlacedFile {
  name: string;
  /** Absolute, on the host. */
  path: string;
  read_only: boolean;
}

export type Owner = NonNullable<VmSpec['user']>;

/**
 * Fills a jail before the jailer runs: kernel, initramfs, drives, and an empty log. Hard links, so that nothing is
 * copied and the guest's writes are in the driver's own file. What is shared between VMs keeps its owner and is linked
 * only if everybody may read it; else it is copied (cheaply, where the file system can).
 */
export async function prepareJail(o: {
  root: string;
  user: Owner;
  files: readonly PlacedFile[];
  log_name: string;
}): Promise<void> {
  await mkdir(dirname(o.root), { recursive: true, mode: 0o755 });
  await mkdir(o.root, { mode: 0o700 }).catch((error: NodeJS.ErrnoException) => {
    throw error.code === 'EEXIST' ? new Error(`the jail ${o.root} exists already: ids are used once`) : error;
  });
  for (const file of o.files) await place(join(o.root, file.name), file, o.user);
  await writeFile(join(o.root, o.log_name), '', { mode: 0o600, flag: 'wx' });
  await chown(join(o.root, o.log_name), o.user.uid, o.user.gid);
  await chown(o.root, o.user.uid, o.user.gid);
}

async function place(target: string, file: PlacedFile, user: Owner): Promise<void> {
  // A hard link to a symbolic link would lead out of the jail, to nothing.
  const source = await realpath(file.path);
  const info = await stat(source);
  if (!info.isFile()) throw new Error(`${file.path} is no regular file: it cannot be a drive`);
  const readable = (info.mode & 0o004) !== 0 || info.uid === user.uid;
  if (file.read_only && !readable) return await copyInto(source, target, user);
  try {
    await link(source, target);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EXDEV') throw error;
    if (file.read_only) return await copyInto(source, target, user);
    throw new Error(`${file.path} is on another file system than the jail: what the VM writes would be lost`);
  }
  if (file.read_only) return;
  await chown(target, user.uid, user.gid);
  await chmod(target, 0o600);
}

async function copyInto(source: string, target: string, user: Owner): Promise<void> {
  await copyFile(source, target, constants.COPYFILE_FICLONE | constants.COPYFILE_EXCL);
  await chown(target, user.uid, user.gid);
  await chmod(target, 0o400);
}

/**
 * Without a jailer: the same names in the VM's own folder. A VM with a user of its own cannot look into the data
 * folder, so its files are linked as into a jail; else a symbolic link will do, on any file system.
 */
export async function prepareFolder(o: {
  root: string;
  user: Owner | null;
  files: readonly PlacedFile[];
  log_name: string;
}): Promise<void> {
  for (const file of o.files) {
    const target = join(o.root, file.name);
    if (o.user !== null) await place(target, file, o.user);
    else await symlink(await realpath(file.path), target);
  }
  await writeFile(join(o.root, o.log_name), '', { mode: 0o600, flag: 'wx' });
  if (o.user !== null) await chown(join(o.root, o.log_name), o.user.uid, o.user.gid);
}
