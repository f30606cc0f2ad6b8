import { readdir, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';

/**
 * The first file system of a VM: a static busybox, the kernel modules its devices need, and the guest agent. Written
 * by ourselves as a cpio archive ("newc"), uncompressed: in an emulated machine unpacking would cost more than reading.
 */
export interface CpioEntry {
  path: string;
  mode: number;
  /** Content of a file, target of a link; null for a folder. */
  data: Buffer | null;
}

const KIND = { folder: 0o040000, file: 0o100000, link: 0o120000 };
export const folder = (path: string): CpioEntry => ({ path, mode: KIND.folder | 0o755, data: null });
export const file = (path: string, data: Buffer | string, mode = 0o644): CpioEntry => ({
  ...{ path, mode: KIND.file | mode, data: Buffer.from(data) },
});
export const link = (path: string, target: string): CpioEntry => ({
  ...{ path, mode: KIND.link | 0o777, data: Buffer.from(target) },
});

/** Owners, times and inode numbers are the same for the same entries, so the archive is too. */
export function makeCpio(entries: readonly CpioEntry[]): Buffer {
  const parts: Buffer[] = [];
  const all = [...entries, { path: 'TRAILER!!!', mode: 0, data: null }];
  for (const [index, { path, mode, data }] of all.entries()) {
    const links = mode === 0 ? 1 : data === null ? 2 : 1;
    const name = Buffer.from(`${path}\0`);
    const fields = [mode === 0 ? 0 : index + 1, mode, 0, 0, links, 0, data?.length ?? 0, 0, 0, 0, 0];
    const header = `070701${[...fields, name.length, 0].map((n) => n.toString(16).padStart(8, '0')).join('')}`;
    parts.push(padded(Buffer.concat([Buffer.from(header), name])), padded(data ?? Buffer.alloc(0)));
  }
  return Buffer.concat(parts);
}

function padded(data: Buffer): Buffer {
  return data.length % 4 === 0 ? data : Buffer.concat([data, Buffer.alloc(4 - (data.length % 4))]);
}

/** What a VM's drives, channels, network and file systems need, in any hypervisor. */
const MODULES = [
  ...['virtio_mmio', 'virtio_blk', 'virtio_net', 'virtio_console', 'virtio_rng'],
  ...['vmw_vsock_virtio_transport', 'squashfs', 'overlay', 'ext4', 'loop'],
];

/** Modules with all they depend on, in the order in which they can be loaded; what is built in is left out. */
export async function orderModules(
  modules_dir: string,
  wanted: readonly string[] = MODULES,
): Promise<string[]> {
  const paths = new Map<string, string>();
  for (const entry of await readdir(modules_dir, { recursive: true }))
    if (entry.endsWith('.ko')) paths.set(moduleName(entry), join(modules_dir, entry));
  const ordered: string[] = [];
  const visit = async (name: string): Promise<void> => {
    const path = paths.get(name);
    if (path === undefined || ordered.includes(path)) return;
    for (const needed of dependencies(await readFile(path))) await visit(needed);
    ordered.push(path);
  };
  for (const name of wanted) await visit(name);
  return ordered;
}

function moduleName(path: string): string {
  return basename(path, '.ko').replaceAll('-', '_');
}

/** `depends=` and `softdep=pre:` of a module's .modinfo section; the section is a list of NUL-ended texts. */
export function dependencies(module: Buffer): string[] {
  const found: string[] = [];
  for (const field of ['\0depends=', '\0softdep=pre: ']) {
    const at = module.indexOf(field);
    if (at < 0) continue;
    const start = at + field.length;
    const text = module.subarray(start, module.indexOf(0, start)).toString('latin1');
    found.push(...text.split(/[ ,]+/).filter((name) => /^[\w-]+$/.test(name)));
  }
  return found.map((name) => name.replaceAll('-', '_'));
}

/** The part that belongs to the builder image; the agent is appended when a VM is started (boot.ts). */
export async function makeInitramfs(busybox: string, modules_dir: string): Promise<Buffer> {
  const modules = await orderModules(modules_dir);
  const names = modules.map((path) => basename(path));
  const entries = ['bin', 'dev', 'proc', 'sys', 'modules', 'lower', 'scratch', 'root', 'etc'].map(folder);
  entries.push(file('bin/busybox', await readFile(busybox), 0o755), link('bin/sh', 'busybox'));
  entries.push(file('modules/order', names.map((name) => `${name}\n`).join('')));
  for (const path of modules) entries.push(file(`modules/${basename(path)}`, await readFile(path)));
  return makeCpio(entries);
}
