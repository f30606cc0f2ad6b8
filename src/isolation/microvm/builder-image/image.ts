import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Recipe } from './recipe.ts';

/** A finished builder image; its folder is named by its digest and never changed. */
export interface BuilderImage {
  /** Of the recipe and everything made from it: sha256 hex. */
  digest: string;
  dir: string;
  kernel: string;
  /** Without the guest agent, which is part of Kiln and is appended at the start of a VM (boot.ts). */
  initramfs: string;
  rootfs_tar: string;
  /** The same files as a read-only squashfs. */
  rootfs_squashfs: string;
  /** One line per Debian package (`name version`) and npm package (`npm:name version`), sorted. */
  packages_file: string;
  recipe: Recipe;
  kernel_release: string;
  /** Language tools, as `findToolchains` names them on a host: what plans are checked against. */
  tools: { name: string; version: string }[];
  libc: string;
  made_at: string;
}

/** What `builder.json` holds; file names are relative to its folder. */
export type BuilderRecord = Omit<
  BuilderImage,
  'dir' | 'kernel' | 'initramfs' | 'rootfs_tar' | 'rootfs_squashfs' | 'packages_file'
>;

export const FILES = {
  kernel: 'kernel',
  initramfs: 'initramfs',
  rootfs_tar: 'rootfs.tar',
  rootfs_squashfs: 'rootfs.squashfs',
  packages_file: 'packages.txt',
} as const;
export const RECORD_FILE = 'builder.json';

export function toImage(dir: string, record: BuilderRecord): BuilderImage {
  const files = Object.fromEntries(Object.entries(FILES).map(([field, name]) => [field, join(dir, name)]));
  return { ...record, dir, ...(files as Record<keyof typeof FILES, string>) };
}

/** All finished images of a folder, newest first. */
export async function listBuilderImages(dir: string): Promise<BuilderImage[]> {
  const images: BuilderImage[] = [];
  for (const name of await readdir(dir).catch(() => [])) {
    if (!/^[0-9a-f]{64}$/.test(name)) continue;
    const text = await readFile(join(dir, name, RECORD_FILE), 'utf8').catch(() => null);
    if (text !== null) images.push(toImage(join(dir, name), JSON.parse(text) as BuilderRecord));
  }
  return images.sort((a, b) => b.made_at.localeCompare(a.made_at));
}

/** The newest image, or null when none was made yet. */
export async function findBuilderImage(dir: string): Promise<BuilderImage | null> {
  return (await listBuilderImages(dir))[0] ?? null;
}
