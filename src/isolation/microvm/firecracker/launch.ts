import { basename, join, relative } from 'node:path';
import type { VmSpec } from '../hypervisor.ts';
import type { BootSource, Drive, MachineConfiguration, Vsock } from './api.ts';
import { type CgroupLayout, cgroupDirs, cgroupSettings } from './cgroup.ts';
import type { PlacedFile } from './jail.ts';
import { firecrackerId, jailerArguments, jailRoot } from './jailer.ts';
import { VSOCK_NAME } from './vsock.ts';

/** How one VM is launched and configured: decided here, done in hypervisor.ts. */
export interface LaunchPlan {
  id: string;
  /** Where the VM's files and sockets are: the jail's root, or the VM's own folder. */
  root: string;
  jailed: boolean;
  argv: string[];
  cwd: string;
  cgroup_dirs: string[];
  files: PlacedFile[];
  machine: MachineConfiguration;
  boot: BootSource;
  drives: Drive[];
  vsock: Vsock;
}

export interface LaunchTools {
  /** Absolute, links resolved: the jailer names the jail after it. */
  binary: string;
  jailer: string | null;
  setpriv: string | null;
  cgroup: CgroupLayout | null;
  cgroup_parent: string;
  netns: string | null;
  /** Group that may open /dev/kvm, for a VM that has its own user but no jail. */
  kvm_group: number | null;
}

export const API_NAME = 'fc-api.sock';
export const LOG_NAME = 'fc.log';
export const CONSOLE_NAME = 'fc-console.log';
export const STDERR_NAME = 'fc-stderr.log';
export const STATE_NAME = 'fc-state.json';

/** The guest's way to the proxy: it listens on this port of its loopback and calls the same port of the host. */
export const EGRESS_PORT = 3128;
export const CHANNEL_PORTS = { control: 1, stdout: 2, stderr: 3 } as const;

const MIB = 1024 * 1024;
/** What the VMM needs besides the guest's memory; the page cache of the drives may use it, too. */
const VMM_BYTES = 256 * MIB;
/** One per vCPU, the API, the VMM, and room for I/O workers. */
const VMM_TASKS = 32;
const OPEN_FILES = 4096;
/** Any but the reserved 0, 1 and 2: every VM has a vsock of its own. */
const GUEST_CID = 3;
const MAX_VCPUS = 32;

/**
 * `reboot=k`, `panic=1`: a guest that ends or panics resets through the keyboard controller, which ends Firecracker;
 * it has no other way to power off.
 */
const BOOT_ARGUMENTS = [
  'console=ttyS0',
  'quiet',
  'reboot=k',
  'panic=1',
  'pci=off',
  'i8042.noaux',
  'i8042.nomux',
  'i8042.dumbkbd',
];

export function planLaunch(tools: LaunchTools, spec: VmSpec, elf_kernel: string): LaunchPlan {
  const jailed = tools.jailer !== null && spec.user !== null;
  const id = firecrackerId(spec.id);
  const chroot_base_dir = join(spec.dir, 'jail');
  const root = jailed ? jailRoot({ chroot_base_dir, exec_file: tools.binary, id }) : spec.dir;
  const inside = (name: string) => insideName({ jailed }, name);
  const limits = {
    memory_bytes: spec.memory_bytes + VMM_BYTES,
    tasks: spec.vcpus + VMM_TASKS,
    vcpus: spec.vcpus,
  };
  const own = ['--api-sock', inside(API_NAME), '--log-path', inside(LOG_NAME), '--level', 'Error'];
  const command = jailed
    ? jailerArguments({
        ...{ jailer: tools.jailer!, exec_file: tools.binary, id, ...spec.user!, chroot_base_dir },
        cgroup: tools.cgroup && {
          ...{ version: tools.cgroup.version, parent: tools.cgroup_parent },
          settings: cgroupSettings(tools.cgroup.version, limits),
        },
        ...{ netns: tools.netns, file_bytes: spec.max_file_bytes, open_files: OPEN_FILES, arguments: own },
      })
    : [...userArguments(tools, spec), tools.binary, '--id', id, ...own];
  return {
    ...{ id, root, jailed, cwd: spec.dir },
    argv: [...spec.limit_arguments, ...command],
    cgroup_dirs: jailed && tools.cgroup ? cgroupDirs(tools.cgroup, tools.cgroup_parent, id) : [],
    files: [
      { name: 'fc-kernel', path: elf_kernel, read_only: true },
      { name: 'fc-initramfs', path: spec.initramfs, read_only: true },
      ...spec.drives.map(({ name, path, read_only }) => ({ name: `fc-drive-${name}`, path, read_only })),
    ],
    ...configuration(spec, inside),
  };
}

/** What Firecracker is told: names that mean the same in every VM, so that a snapshot of one can become another. */
export const insideName = (plan: Pick<LaunchPlan, 'jailed'>, name: string) =>
  plan.jailed ? `/${name}` : name;

function configuration(spec: VmSpec, inside: (name: string) => string) {
  if (spec.vcpus < 1 || spec.vcpus > MAX_VCPUS)
    throw new Error(`Firecracker takes 1 to ${MAX_VCPUS} vCPUs, not ${spec.vcpus}`);
  return {
    machine: { vcpu_count: spec.vcpus, mem_size_mib: Math.floor(spec.memory_bytes / MIB), smt: false },
    boot: {
      kernel_image_path: inside('fc-kernel'),
      initrd_path: inside('fc-initramfs'),
      boot_args: [...BOOT_ARGUMENTS, ...spec.cmdline, ...relays(spec)].join(' '),
    },
    // None is the root device: the initramfs mounts them, by their order.
    drives: spec.drives.map(({ name, read_only }) => ({
      ...{ drive_id: name, path_on_host: inside(`fc-drive-${name}`) },
      ...{ is_root_device: false, is_read_only: read_only },
    })),
    vsock: { guest_cid: GUEST_CID, uds_path: inside(VSOCK_NAME) },
  };
}

/** What the guest must relay between its loopback and its vsock (guest.sh). */
function relays({ network }: VmSpec): string[] {
  if (network.kind === 'egress') return [`kiln.vsock_egress=${EGRESS_PORT}`];
  if (network.kind === 'none') return [];
  const outbound = network.outbound ? [`kiln.vsock_egress=${EGRESS_PORT}`] : [];
  return [...outbound, `kiln.vsock_forward=${network.guest_port}`];
}

/**
 * Without a jail: the VM's own user, with the one group that may use KVM, and an end together with the engine. In a
 * jail the kernel forgets the latter when the jailer changes users; then the next engine's sweep ends what is left.
 */
function userArguments(tools: LaunchTools, spec: VmSpec): string[] {
  if (tools.setpriv === null) {
    if (spec.user === null) return [];
    throw new Error('setpriv is not installed: without it or the jailer a VM would run as root');
  }
  const user = spec.user && [`--reuid=${spec.user.uid}`, `--regid=${spec.user.gid}`];
  const groups = user && (tools.kvm_group === null ? '--clear-groups' : `--groups=${tools.kvm_group}`);
  const death = spec.survives_engine ? [] : ['--pdeathsig=KILL'];
  return [tools.setpriv, ...(user ?? []), ...(groups ? [groups] : []), '--no-new-privs', ...death, '--'];
}

/** `socat` that writes what the guest sends on a channel to a file, whether an engine is there or not. */
export function recorderArguments(
  socat: string,
  plan: LaunchPlan,
  channel: keyof typeof CHANNEL_PORTS,
): string[] {
  const socket = join(relative(plan.cwd, plan.root), `${VSOCK_NAME}_${CHANNEL_PORTS[channel]}`);
  // In an address of socat these have a meaning; none occurs in the names that are made here.
  if (/[:,!'"\\]/.test(socket) || Buffer.byteLength(socket) > 107)
    throw new Error(`${JSON.stringify(socket)} cannot be the name of a channel's socket`);
  const listen = `UNIX-LISTEN:${socket},fork,max-children=4,mode=666,unlink-early`;
  return [socat, '-u', listen, `OPEN:${basename(channel)}.log,creat,append,mode=600`];
}
