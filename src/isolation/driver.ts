/**
 * The isolation port: where code nobody has read runs. One call starts a *machine* (a build, an instance, or a
 * sandbox exec); what differs between drivers is only how strongly it is shut in. Every driver passes
 * `contract.ts`; skips there carry a reason and a capability flag.
 */
import type { ListeningPort } from '../domain/failure.ts';
import type { Answers } from './answers.ts';
import type { MachineImage } from './image.ts';
import type { HostContact, NetworkPolicy } from './network/policy.ts';

export type DriverName = 'process' | 'bubblewrap' | 'docker' | 'qemu' | 'firecracker';

export interface Capabilities {
  /** Files outside the workspace, the toolchains and /tmp cannot be seen. */
  hides_host_files: boolean;
  /** Processes of the host cannot be seen or signalled. */
  hides_host_processes: boolean;
  /** The workspace is always at /workspace, so absolute paths in a build's output stay valid. */
  fixed_workspace_path: boolean;
  /** Machines die with the engine, even on kill -9. */
  dies_with_engine: boolean;
  /** `MachineSpec.network` is enforced for builds and execs: the host's loopback and private ranges cannot be reached. */
  limits_network: boolean;
  /**
   * A machine takes seconds to start and its workspace is copied in and out: a build runs all its commands in one
   * machine, and sandbox execs are better served by another driver.
   */
  copies_workspace: boolean;
  /** A virtual machine: its processes, ports and files are not the host's, not even to look at. */
  own_kernel?: boolean;
}

/** `emulated`: works, but many times slower than on hardware; taken before others only when somebody asks for it. */
export type SelfTest =
  | { ok: true; detail: string; emulated?: boolean }
  | { ok: false; reason: string; install: string | null };

export interface Limits {
  /** Wall time; null for no limit (instances). Milliseconds. */
  time_ms: number | null;
  /** Resident memory of all processes of the machine together. Bytes. */
  memory_bytes: number;
  processes: number;
  /** Growth of the workspace plus /tmp. Bytes. */
  disk_bytes: number;
  /** Output kept and passed on; more kills a build (`on_log_limit: 'kill'`) or is dropped (`'drop'`). Bytes. */
  log_bytes: number;
  on_log_limit: 'kill' | 'drop';
}

export interface MachineSpec {
  /** Unique (`mch_…`, `ins_…`); used to find every process of the machine again after a crash. */
  id: string;
  kind: 'build' | 'instance' | 'exec';
  /** Host folder that the machine sees as its workspace (read-write). */
  workspace_dir: string;
  /** Folder inside the workspace to start in, relative ('.' for the root). */
  cwd: string;
  /** Run as `sh -c <command>`; an app's command is the user's own shell text by design. */
  command: string;
  /** The whole environment besides what the driver adds (PATH, HOME, TMPDIR, registry settings). Nothing of the engine's. */
  env: Record<string, string>;
  limits: Limits;
  /** What builds and execs may reach; instances are servers and keep the driver's own network. Default open. */
  network?: NetworkPolicy;
  /** Root inside, for what needs it (a container engine). Only where `own_kernel` makes that nobody on the host. */
  as_root?: boolean;
  /** Instances only, where machines share the host's ports: what Node, Python and Ruby code is to listen on instead. */
  moved_port?: MovedPort | null;
  /** A folder that outlives the machine, seen read-write at `/cache` (`KILN_CACHE_DIR` says where); builds only. */
  cache?: CacheFolder | null;
  /** Receives raw output as it comes; must not throw. */
  on_output: (stream: 'stdout' | 'stderr', chunk: Buffer) => void;
}

/** A port that an app's code names, and the one that this instance of it was given. */
export interface MovedPort {
  declared: number;
  assigned: number;
}

export interface CacheFolder {
  /** On the host; belongs to one deployment, so nobody can poison another's. A driver may keep a disk image in it. */
  dir: string;
  /** Holds: a build that fills it loses the oldest entries, or the whole cache, never the build. Bytes. */
  max_bytes: number;
}

export type ExitReason =
  | 'exited'
  | 'killed'
  | 'timed_out'
  | 'out_of_memory'
  | 'too_many_processes'
  | 'out_of_disk'
  | 'log_limit'
  /** The virtual machine itself broke: kernel panic, hypervisor death, no sign of life. */
  | 'machine_failed';

export interface MachineExit {
  reason: ExitReason;
  /** Null when a signal ended the command. A status of 128 + n counts as signal n, as every shell reports it. */
  exit_code: number | null;
  signal: string | null;
  /** What was seen at most. Bytes, count, milliseconds. */
  peak_memory_bytes: number;
  peak_processes: number;
  duration_ms: number;
  /** Processor time of all processes together; null when the driver cannot tell. Milliseconds. */
  cpu_ms?: number | null;
  /** How far the disk grew at most; null when the driver cannot tell. Bytes. */
  disk_bytes?: number | null;
  /** Hosts asked for through the network policy's proxy, refused ones included. */
  hosts?: HostContact[];
  /** For `machine_failed`, and wherever the driver knows more than the reason says: one sentence. */
  detail?: string | null;
}

export interface Machine {
  id: string;
  /** Host pid of the outermost process. */
  pid: number;
  /** Resolves once every process of the machine is gone and all output was delivered. Never rejects. */
  exited: Promise<MachineExit>;
  /** TERM to the whole machine, KILL after `grace_ms`; resolves when nothing of it is left. Idempotent. */
  stop(grace_ms: number): Promise<MachineExit>;
  /** TCP ports the machine's own processes listen on. */
  listening(): Promise<ListeningPort[]>;
  /** Whether the machine itself listens on a port of the host, null where that cannot be told; only where it shares the host's ports. */
  ownsPort?(port: number): Promise<boolean | null>;
  usage(): Promise<{ memory_bytes: number; processes: number }>;
}

/** What a driver is made from; everything it knows of the host comes through here. */
export interface DriverOptions {
  /** The data folder: machines carry a digest of its path, so that `sweep` finds those of this engine only. */
  data_dir: string;
  /** Scratch inside the data folder: one private folder (HOME and /tmp) per machine, removed with it. */
  work_dir: string;
  /** The engine's environment. Only PATH, certificate and package-registry settings are picked from it. */
  host_env: Record<string, string | undefined>;
  /** Hand registry credentials (npm tokens, user:password in index URLs) to builds and execs. Default false. */
  pass_registry_credentials?: boolean;
  /** What the host's programs said at earlier starts; without it they are asked anew. */
  answers?: Answers;
}

/** What plans are checked against before anything runs. */
export interface ToolOffer {
  /** `bin_dir`: where a further version is, which PATH does not find first. */
  offered: { name: string; version: string; bin_dir?: string }[];
  /** Names that were searched for: a tool among them that is not offered is not there. */
  looked_for: readonly string[];
}

export interface IsolationDriver {
  name: DriverName;
  capabilities: Capabilities;
  /** Image drivers: the root file system of builds, and the base layers of the images made from them. Else null. */
  base_image?: MachineImage | null;
  /** Runs something real; never "the file exists". */
  selfTest(): Promise<SelfTest>;
  /** Identifies what a release built here can run on: platform, libc and toolchain versions. Stable text. */
  base(): Promise<string>;
  /** The language tools that builds find; left out where a driver cannot say: then builds find out. */
  tools?(): Promise<ToolOffer>;
  /** Rejects only when the machine could not be started at all. */
  start(spec: MachineSpec): Promise<Machine>;
  /**
   * After a crash: kills whatever is left of machines of this data folder, of any driver, except `keep` and the
   * machines this driver object started itself; then removes their private folders. Returns their ids.
   */
  sweep(keep: ReadonlySet<string>): Promise<string[]>;
  /** Starts to keep machines ready for work, where its settings say so; for the driver that was chosen. */
  warm?(): void;
  /** Ends what waits for work (warm machines). Machines that were started are their owners' to stop. */
  close?(): Promise<void>;
}
