import { execFile } from 'node:child_process';
import { chown, open, rename, rm, stat, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { CacheFolder } from '../driver.ts';
import { findProgram } from '../program.ts';
import type { VmDrive, VmSpec } from './hypervisor.ts';

const MIB = 1024 * 1024;
const SECTOR = 512;
const FORMAT_TIMEOUT_MS = 60_000;
/** Blocks and inode tables that ext4 keeps for itself: 1/32 for inodes of 256 bytes per 8 KiB, and some more. */
const EXT4_OVERHEAD = 1.06;
const EXT4_BASE_BYTES = 24 * MIB;
const MAX_TAR_OVERHEAD = 1.1;
const CACHE_IMAGE = 'cache.img';
/** Copying more than this into a waiting VM takes longer than booting one. */
const MAX_COPIED_CACHE_BYTES = 512 * MIB;
const COPY_TIMEOUT_MS = 60_000;

/** The guest has what it was given besides the job's own limit: its kernel, the agent, page tables. */
export const GUEST_OVERHEAD_BYTES = 192 * MIB;

type User = VmSpec['user'];

/** What the root file system is made of, bottom first. */
export function rootDrives(squashfs: readonly string[]): VmDrive[] {
  return squashfs.map((path, i) => ({ name: i === 0 ? 'root' : `root${i + 1}`, path, read_only: true }));
}

/** A sparse file of a size; costs nothing until it is written. */
export async function makeSparse(path: string, bytes: number, user: User): Promise<void> {
  await (await open(path, 'wx', 0o600)).close();
  await truncate(path, Math.ceil(bytes / SECTOR) * SECTOR);
  if (user !== null) await chown(path, user.uid, user.gid);
}

/** Makes a file's length one that a drive can have. */
export async function padDrive(path: string, user: User): Promise<void> {
  const { size } = await stat(path);
  await truncate(path, Math.ceil((size + 1) / SECTOR) * SECTOR);
  if (user !== null) await chown(path, user.uid, user.gid);
}

/**
 * Where everything goes that the machine writes: an ext4 image whose size is the limit. Slightly larger than that, so
 * that the agent can tell a full disk from an almost full one; what does not fit the kernel refuses.
 */
export async function makeScratch(path: string, content_bytes: number, user: User): Promise<number> {
  const bytes = Math.ceil(content_bytes * EXT4_OVERHEAD) + EXT4_BASE_BYTES;
  await makeSparse(path, bytes, user);
  await format(path, ['-O', '^has_journal,^resize_inode', '-i', '8192']);
  return bytes;
}

/** Holds a tar of all that fits on the scratch disk. */
export async function makeOutput(path: string, scratch_bytes: number, user: User): Promise<number> {
  const bytes = Math.ceil(scratch_bytes * MAX_TAR_OVERHEAD) + MIB;
  await makeSparse(path, bytes, user);
  return bytes;
}

async function format(path: string, options: readonly string[]): Promise<void> {
  const mke2fs = findProgram('mke2fs');
  if (mke2fs === null) throw new Error('mke2fs is not installed (apt-get install e2fsprogs)');
  const lazy = ['-E', 'lazy_itable_init=1,lazy_journal_init=1,nodiscard', '-m', '0'];
  await promisify(execFile)(mke2fs, ['-q', '-F', '-t', 'ext4', ...lazy, ...options, path], {
    timeout: FORMAT_TIMEOUT_MS,
  });
}

/**
 * A deployment's cache as a drive. The image is taken out of the cache folder while a machine uses it and put back
 * afterwards: two builds at once never write one image (the second starts with an empty one), and what a crash leaves
 * half written goes with the machine's folder. Its size is the cap; it is made anew when the cap changes.
 */
export async function takeCache(cache: CacheFolder, dir: string, user: User): Promise<VmDrive | null> {
  const path = join(dir, CACHE_IMAGE);
  const kept = join(cache.dir, CACHE_IMAGE);
  const bytes = cacheDriveBytes(cache.max_bytes);
  if (bytes === 0) return null;
  try {
    if ((await stat(kept)).size !== bytes) throw new Error('the cap has changed');
    await rename(kept, path);
    if (user !== null) await chown(path, user.uid, user.gid);
  } catch {
    await makeSparse(path, bytes, user);
    await format(path, ['-i', '8192']);
  }
  return { name: 'cache', path, read_only: false };
}

/** The size of the drive that a cache becomes; 0 for one too small to be worth it. */
export function cacheDriveBytes(max_bytes: number): number {
  const bytes = Math.floor(max_bytes / SECTOR) * SECTOR;
  return bytes < 16 * MIB ? 0 : bytes;
}

/** Whether a cache can be brought into a waiting VM sooner than a VM boots. */
export async function isQuicklyCopied(cache: CacheFolder): Promise<boolean> {
  const kept = await stat(join(cache.dir, CACHE_IMAGE)).catch(() => null);
  return kept === null || kept.blocks * 512 <= MAX_COPIED_CACHE_BYTES;
}

/**
 * takeCache for a VM that has its cache drive open already, as an empty file of the right size: the content is put into
 * that same file. Holes stay holes.
 */
export async function fillCache(cache: CacheFolder, dir: string): Promise<void> {
  const path = join(dir, CACHE_IMAGE);
  const taken = join(dir, 'cache.taken');
  try {
    await rename(join(cache.dir, CACHE_IMAGE), taken);
    if ((await stat(taken)).size !== (await stat(path)).size) throw new Error('the cap has changed');
    await promisify(execFile)('cp', ['--sparse=always', '--', taken, path], { timeout: COPY_TIMEOUT_MS });
  } catch {
    await truncate(path, 0);
    await truncate(path, cacheDriveBytes(cache.max_bytes));
    await format(path, ['-i', '8192']);
  }
  await rm(taken, { force: true });
}

/** Gives the image back; where that does not work the next build starts with an empty cache. */
export async function returnCache(cache: CacheFolder, dir: string): Promise<void> {
  await rename(join(dir, CACHE_IMAGE), join(cache.dir, CACHE_IMAGE)).catch(() => undefined);
}
