/**
 * The hypervisor port: what the microVM driver needs of QEMU, Firecracker or another. A hypervisor boots a kernel
 * with some drives, and carries bytes; everything about builds, images and limits is the driver's (driver.ts) and
 * the guest agent's (guest/init.sh).
 *
 * A VM has one folder (`dir`), which the driver makes and removes. Sockets, logs and drives lie in it.
 */
import type { Duplex } from 'node:stream';
import type { SelfTest } from '../driver.ts';
import type { CpioEntry } from './builder-image/initramfs.ts';

export interface VmDrive {
  /**
   * The guest finds its drives by these; see `Hypervisor.drive_names`. `root2` is laid over `root`, `root3` over both.
   */
  name: 'root' | `root${number}` | 'scratch' | 'input' | 'output' | 'cache';
  /** Absolute host path of a raw image or file; its length (a multiple of 512) is the size of the drive. */
  path: string;
  read_only: boolean;
}

/**
 * Bytes between guest and host. `control` is two-way JSON lines (guest/protocol.ts), the others are the raw output of
 * the command. `socket`: read by this engine, waits for it (back pressure). `file`: written to
 * `<dir>/<name>.log` whether an engine is there or not.
 */
export interface VmChannel {
  name: 'control' | 'stdout' | 'stderr';
  to: 'socket' | 'file';
}

export type VmNetwork =
  /** No network card at all. */
  | { kind: 'none' }
  /** The one thing the guest reaches is the proxy on a Unix socket of the host, at `Hypervisor.egress_url`. */
  | { kind: 'egress'; socket_path: string }
  /** 127.0.0.1:`host_port` leads to `guest_port`. `outbound`: the guest may also connect to the world. */
  | { kind: 'forward'; host_port: number; guest_port: number; outbound: boolean };

export interface VmSpec {
  /** Unique (`mch_…`, `ins_…`). */
  id: string;
  /** The VM's own folder, absolute. Owned by `user` where that is set. */
  dir: string;
  /** Absolute host paths; read-only, shared between VMs. */
  kernel: string;
  initramfs: string;
  /** What the guest agent reads (`kiln.…=…`); the hypervisor adds its console and what its devices need. */
  cmdline: readonly string[];
  drives: readonly VmDrive[];
  channels: readonly VmChannel[];
  network: VmNetwork;
  vcpus: number;
  memory_bytes: number;
  /** Most bytes that any file the hypervisor writes may have (RLIMIT_FSIZE); holds even if the guest's kernel is lost. */
  max_file_bytes: number;
  /** Unprivileged owner of the hypervisor process; null when the engine is not root and cannot change users. */
  user: { uid: number; gid: number } | null;
  /** Environment of every process of this VM on the host, by which a sweep finds them (marks.ts). */
  marks: Record<string, string>;
  /** `prlimit …` in front of the command line; holds the second mark and the limit on files (program.ts). */
  limit_arguments: readonly string[];
  /** Goes on when the engine ends (instances). Otherwise it should die with it, where the host can do that. */
  survives_engine: boolean;
}

/** What is needed to find a running VM again after an engine restart; JSON. */
export interface VmRecord {
  id: string;
  pid: number;
  /** Start time of the process in clock ticks (/proc/<pid>/stat): pids are used again. */
  started: string;
}

export interface VmEnd {
  exit_code: number | null;
  signal: string | null;
  /** The hypervisor's own complaint, shortened; '' when it said nothing. */
  message: string;
}

export interface Vm {
  record: VmRecord;
  pid: number;
  /** The hypervisor process is gone (its helpers may live a moment longer: the driver sweeps them by their marks). Never rejects. */
  exited: Promise<VmEnd>;
  /** At once and for good; the caller waits for `exited`. */
  kill(): void;
  /** Opens a `socket` channel; rejects when the VM is gone. Closing it does not end the VM. */
  open(channel: VmChannel['name']): Promise<Duplex>;
  /** The end of the kernel's console, at most 64 KiB: says why a kernel panicked. */
  console(): Promise<string>;
}

export interface Hypervisor {
  name: 'qemu' | 'firecracker';
  /** Guest devices of the channels: named virtio serial ports, or vsock ports (control 1, stdout 2, stderr 3). */
  channels: 'virtio-serial' | 'vsock';
  /** How the guest tells drives apart: `serial`: /sys/block/vd?/serial holds the name; `order`: vda is the first of `drives`. */
  drive_names: 'serial' | 'order';
  /** Where a guest with network `egress` finds the proxy: `http://10.0.2.100:3128`. */
  egress_url: string;
  /** How much longer things take than on hardware: 1 with KVM, more for emulation. Stretches boot and heartbeat limits. */
  slowness: number;
  /** What its guests need in their initramfs besides the agent: `hypervisor.sh` and what that uses. */
  guestFiles?(): Promise<CpioEntry[]>;
  /** Cheap check that it could be started at all (program, KVM); the driver then boots a real VM as its self-test. */
  check(): Promise<SelfTest>;
  /** Rejects when the hypervisor did not start; otherwise nothing is known of the guest yet. */
  start(spec: VmSpec): Promise<Vm>;
  /** The VM of a record, if its process still runs; `spec` is what it was started with. */
  adopt(record: VmRecord, spec: Pick<VmSpec, 'id' | 'dir' | 'channels'>): Promise<Vm | null>;
}
