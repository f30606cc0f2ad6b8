import { basename, join } from 'node:path';

/**
 * Firecracker's jailer: changes root to a folder that holds only what the VM needs, joins a control group, drops to an
 * unprivileged user, and becomes Firecracker: same process, so its end is the VM's end. That is why neither
 * `--daemonize` nor `--new-pid-ns` is used: both leave the VM to a process that is not our child, so that its exit
 * status is lost. Started detached and with files for its output, a VM outlives the engine as well.
 */
export interface JailerOptions {
  jailer: string;
  /** Absolute; its file name must contain `firecracker`. */
  exec_file: string;
  id: string;
  uid: number;
  gid: number;
  /** Absolute, on the same file system as the drives. */
  chroot_base_dir: string;
  cgroup: { version: 1 | 2; parent: string; settings: readonly string[] } | null;
  /** A network namespace without anything in it; VMs have no network card. */
  netns: string | null;
  /** The largest file it may write. */
  file_bytes: number;
  open_files: number;
  /** For Firecracker itself. */
  arguments: readonly string[];
}

const ID = /^[A-Za-z0-9-]{1,64}$/;
const PLAIN = /^[A-Za-z0-9._-]+$/;
const CGROUP = /^[a-z_]+\.[a-z_.]+=[a-z0-9]+( [a-z0-9]+)?$/;

/** Machines are `mch_…`; Firecracker takes letters, digits and hyphens. */
export function firecrackerId(id: string): string {
  const name = id.replaceAll('_', '-');
  if (!ID.test(name))
    throw new Error(
      `${JSON.stringify(id)} is no id for Firecracker: letters, digits and hyphens, at most 64`,
    );
  return name;
}

/** What the jailed Firecracker sees as `/`. */
export function jailRoot(o: Pick<JailerOptions, 'chroot_base_dir' | 'exec_file' | 'id'>): string {
  return join(o.chroot_base_dir, basename(o.exec_file), o.id, 'root');
}

export function jailerArguments(o: JailerOptions): string[] {
  check(o);
  return [
    ...[o.jailer, '--id', o.id, '--exec-file', o.exec_file],
    ...['--uid', String(o.uid), '--gid', String(o.gid), '--chroot-base-dir', o.chroot_base_dir],
    ...(o.netns === null ? [] : ['--netns', o.netns]),
    ...cgroupArguments(o.cgroup),
    ...['--resource-limit', `fsize=${Math.ceil(o.file_bytes)}`],
    ...['--resource-limit', `no-file=${o.open_files}`],
    ...['--', ...o.arguments],
  ];
}

function cgroupArguments(cgroup: JailerOptions['cgroup']): string[] {
  if (cgroup === null) return [];
  return [
    ...['--cgroup-version', String(cgroup.version), '--parent-cgroup', cgroup.parent],
    ...cgroup.settings.flatMap((setting) => ['--cgroup', setting]),
  ];
}

function check(o: JailerOptions): void {
  if (!ID.test(o.id)) throw new Error(`${JSON.stringify(o.id)} is no id for the jailer`);
  const name = basename(o.exec_file);
  if (!PLAIN.test(name) || !name.includes('firecracker'))
    throw new Error(`the jailer starts only programs named firecracker, not ${JSON.stringify(name)}`);
  for (const path of [o.jailer, o.exec_file, o.chroot_base_dir, ...(o.netns === null ? [] : [o.netns])])
    if (!path.startsWith('/') || path.includes('\0'))
      throw new Error(`${JSON.stringify(path)} is no absolute path, which the jailer needs`);
  for (const id of [o.uid, o.gid])
    if (!Number.isInteger(id) || id < 1 || id > 2 ** 32 - 2)
      throw new Error(`a VM cannot run as user or group ${id}: it needs an unprivileged one`);
  for (const number of [o.file_bytes, o.open_files])
    if (!(number > 0) || !Number.isFinite(number)) throw new Error(`${number} is no limit`);
  if (o.cgroup === null) return;
  if (!o.cgroup.parent.split('/').every((part) => PLAIN.test(part) && !/^\.+$/.test(part)))
    throw new Error(`${JSON.stringify(o.cgroup.parent)} is no name for a control group`);
  for (const setting of o.cgroup.settings)
    if (!CGROUP.test(setting)) throw new Error(`${JSON.stringify(setting)} is no control group setting`);
}
