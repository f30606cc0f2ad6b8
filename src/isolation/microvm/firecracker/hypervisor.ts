import { execFile } from 'node:child_process';
import { accessSync, constants, readFileSync, statSync } from 'node:fs';
import { realpath } from 'node:fs/promises';
import { basename, join, relative } from 'node:path';
import { promisify } from 'node:util';
import type { SelfTest } from '../../driver.ts';
import { findProgram } from '../../program.ts';
import { removeTree } from '../../scratch.ts';
import type { CpioEntry } from '../builder-image/initramfs.ts';
import type { Hypervisor, Vm, VmRecord, VmSpec } from '../hypervisor.ts';
import type { SnapshotLoad } from './api.ts';
import { readCgroupLayout, removeCgroups } from './cgroup.ts';
import { type FirecrackerClient, firecrackerClient } from './client.ts';
import { type PlacedFile, prepareFolder, prepareJail } from './jail.ts';
import { elfKernel } from './kernel.ts';
import {
  API_NAME,
  CONSOLE_NAME,
  EGRESS_PORT,
  insideName,
  type LaunchPlan,
  type LaunchTools,
  LOG_NAME,
  planLaunch,
  recorderArguments,
  STDERR_NAME,
} from './launch.ts';
import { withAppending } from './log-file.ts';
import { relayFiles } from './relay.ts';
import {
  type Bridges,
  loadState,
  makeVm,
  openBridges,
  type Started,
  saveState,
  startProcess,
  startTime,
  type VmState,
  watchStranger,
} from './vm.ts';

/**
 * Firecracker behind the hypervisor port. A start:
 *
 *   jail filled → host's side of the vsock open → jailer (becomes Firecracker) → API answers → configured → started
 *
 * Whatever fails on the way leaves nothing behind. There is no network card: what the guest reaches, and what reaches
 * it, goes over vsock (vsock.ts), which the guest relays to its loopback (guest.sh).
 */
export interface FirecrackerOptions {
  /** Absolute path, or a name to be looked for. Default `firecracker`. */
  binary?: string;
  /** The same for the jailer; null: never. Used whenever the VM has a user of its own, which takes a root engine. */
  jailer?: string | null;
  search_path: string;
  /** Where kernels are kept unpacked. */
  kernel_dir: string;
  /** The proxy that instances with `outbound` reach; null: such instances cannot be started. */
  outbound_socket: string | null;
  /** A network namespace to put jailed VMs in, absolute path; it should have nothing in it. */
  netns?: string | null;
  cgroup_parent?: string;
  /** For tests. */
  kvm_device?: string;
}

export interface FirecrackerHypervisor extends Hypervisor {
  /** What the guest's initramfs needs besides the agent; see relay.ts. */
  guestFiles(): Promise<CpioEntry[]>;
  /** A running VM that this engine started, for snapshots (warm.ts). */
  running(vm: Vm): RunningVm | null;
  /** Starts a VM from a snapshot in place of a boot: same drives by name, other files behind them. */
  restore(spec: VmSpec, snapshot: { state: string; memory: string }): Promise<Vm>;
}

export interface RunningVm {
  client: FirecrackerClient;
  plan: LaunchPlan;
}

const API_MS = 10_000;
const INSTALL =
  'Put `firecracker` and `jailer` of one release (https://github.com/firecracker-microvm/firecracker/releases) into the PATH, both of the same version.';
const INSTALL_SOCAT = 'apt-get install socat: guests without a network card are reached through it.';
const INSTALL_KVM =
  'Enable virtualisation in the firmware (in a cloud: a bare-metal machine, or one with nested virtualisation), `modprobe kvm_intel` or `kvm_amd`, and run the engine as root or as a member of group kvm.';

type Configure = (client: FirecrackerClient, plan: LaunchPlan) => Promise<void>;

export function firecrackerHypervisor(o: FirecrackerOptions): FirecrackerHypervisor {
  const find = (name: string) => (name.startsWith('/') ? name : findProgram(name, o.search_path));
  const programs = () => ({
    binary: find(o.binary ?? 'firecracker'),
    jailer: o.jailer === null ? null : find(o.jailer ?? 'jailer'),
    ...{ setpriv: find('setpriv'), socat: find('socat') },
  });
  const kernelOf = rememberKernels(o.kernel_dir);
  const kvm_device = o.kvm_device ?? '/dev/kvm';
  const running = new WeakMap<Vm, RunningVm>();

  async function tools(binary: string): Promise<LaunchTools> {
    return {
      ...programs(),
      binary: await realpath(binary),
      cgroup: readCgroupLayout(readFileSync('/proc/mounts', 'utf8')),
      cgroup_parent: o.cgroup_parent ?? 'kiln',
      netns: o.netns ?? null,
      kvm_group: kvmGroup(kvm_device),
    };
  }

  async function launch(spec: VmSpec, extra: readonly PlacedFile[], configure: Configure): Promise<Vm> {
    const { binary, socat } = programs();
    if (binary === null) throw new Error(`firecracker is not installed. ${INSTALL}`);
    const plan = planLaunch(await tools(binary), spec, await kernelOf(spec.kernel));
    const state: VmState = {
      ...{ root: relative(spec.dir, plan.root), jailed: plan.jailed, cgroup_dirs: plan.cgroup_dirs },
      network: spec.network,
    };
    const recorders: Started[] = [];
    let bridges: Bridges | undefined;
    try {
      await prepare(plan, spec, extra);
      const { channels, network } = spec;
      bridges = await openBridges({ root: plan.root, channels, network, outbound_socket: o.outbound_socket });
      await saveState(spec.dir, state);
      await record(spec, plan, socat, recorders);
      const started = await begin(spec, plan);
      return await bootVm({ spec, plan, state, bridges, started, configure, running });
    } catch (error) {
      await bridges?.close('the VM was not started');
      for (const recorder of recorders) recorder.child.kill('SIGKILL');
      if (plan.jailed) await removeTree(join(spec.dir, 'jail'));
      throw error;
    }
  }

  return {
    name: 'firecracker',
    channels: 'vsock',
    drive_names: 'order',
    egress_url: `http://127.0.0.1:${EGRESS_PORT}`,
    slowness: 1,
    check: () => check(programs(), kvm_device),
    start: (spec) => launch(spec, [], configureBoot),
    restore: (spec, snapshot) => {
      const files = [
        { name: 'fc-snapshot-state', path: snapshot.state, read_only: true },
        { name: 'fc-snapshot-memory', path: snapshot.memory, read_only: true },
      ];
      return launch(spec, files, (client, plan) => client.loadSnapshot(snapshotLoad(plan)));
    },
    running: (vm) => running.get(vm) ?? null,
    guestFiles: () => guestFiles(programs().socat),
    adopt: (record, spec) => adoptVm(record, spec, o.outbound_socket),
  };
}

async function adoptVm(
  record: VmRecord,
  spec: Pick<VmSpec, 'dir' | 'channels'>,
  outbound_socket: string | null,
): Promise<Vm | null> {
  if (startTime(record.pid) !== record.started) return null;
  const state = await loadState(spec.dir);
  if (state === null) return null;
  const { channels } = spec;
  const root = join(spec.dir, state.root);
  const bridges = await openBridges({ root, channels, network: state.network, outbound_socket });
  return makeVm({ record, dir: spec.dir, state, bridges, ended: watchStranger(record) });
}

async function guestFiles(socat: string | null): Promise<CpioEntry[]> {
  if (socat === null) throw new Error(`socat is not installed. ${INSTALL_SOCAT}`);
  return await relayFiles(socat);
}

/** Unpacking reads and hashes the whole kernel: once per engine and file. */
function rememberKernels(kernel_dir: string): (path: string) => Promise<string> {
  const kernels = new Map<string, Promise<string>>();
  return (path) => {
    const { mtimeMs, size } = statSync(path);
    const key = `${path} ${mtimeMs} ${size}`;
    const found = kernels.get(key) ?? elfKernel(path, kernel_dir);
    kernels.set(key, found);
    found.catch(() => kernels.delete(key));
    return found;
  };
}

/** Without a jail the group that may open /dev/kvm, unless everybody may. */
function kvmGroup(device: string): number | null {
  const info = statSync(device, { throwIfNoEntry: false });
  if (info === undefined || (info.mode & 0o006) === 0o006) return null;
  return (info.mode & 0o060) === 0o060 && info.gid !== 0 ? info.gid : null;
}

async function prepare(plan: LaunchPlan, spec: VmSpec, extra: readonly PlacedFile[]): Promise<void> {
  const files = [...plan.files, ...extra];
  const { root } = plan;
  if (plan.jailed) await prepareJail({ root, user: spec.user!, files, log_name: LOG_NAME });
  else await prepareFolder({ root, user: spec.user, files, log_name: LOG_NAME });
}

/** A `socat` for each channel that goes to a file; found and ended by its marks, like the VM itself. */
async function record(
  spec: VmSpec,
  plan: LaunchPlan,
  socat: string | null,
  recorders: Started[],
): Promise<void> {
  for (const { name } of spec.channels.filter(({ to }) => to === 'file')) {
    if (socat === null)
      throw new Error('socat is not installed: it keeps the output of instances (apt-get install socat)');
    const argv = [...spec.limit_arguments, ...recorderArguments(socat, plan, name)];
    const started = await withAppending([join(spec.dir, STDERR_NAME)], ([stderr]) =>
      startProcess(argv, { cwd: spec.dir, env: spec.marks, stdout: stderr!, stderr: stderr! }),
    );
    recorders.push(started);
    if (spec.survives_engine) started.child.unref();
  }
}

function begin(spec: VmSpec, plan: LaunchPlan): Promise<Started> {
  const paths = [CONSOLE_NAME, STDERR_NAME].map((name) => join(spec.dir, name));
  return withAppending(paths, ([stdout, stderr]) =>
    startProcess(plan.argv, { cwd: plan.cwd, env: spec.marks, stdout: stdout!, stderr: stderr! }),
  );
}

async function bootVm(o: {
  spec: VmSpec;
  plan: LaunchPlan;
  state: VmState;
  bridges: Bridges;
  started: Started;
  configure: Configure;
  running: WeakMap<Vm, RunningVm>;
}): Promise<Vm> {
  const { spec, plan, started, bridges } = o;
  const pid = started.child.pid!;
  const record = { id: spec.id, pid, started: startTime(pid) ?? '' };
  const vm = makeVm({ record, dir: spec.dir, state: o.state, bridges, ended: started.ended });
  const client = firecrackerClient({ socket_path: bridges.folder.path(API_NAME) });
  try {
    await client.ready({ timeout_ms: API_MS, gone: started.gone });
    await o.configure(client, plan);
  } catch (error) {
    started.child.kill('SIGKILL');
    const { message } = await vm.exited;
    await removeCgroups(plan.cgroup_dirs);
    const complaint = message === '' ? '' : ` It said: ${message}`;
    throw new Error(`the VM was not started: ${(error as Error).message}.${complaint}`, { cause: error });
  }
  if (spec.survives_engine) started.child.unref();
  o.running.set(vm, { client, plan });
  return vm;
}

const configureBoot: Configure = async (client, plan) => {
  await client.setMachineConfig(plan.machine);
  await client.setBootSource(plan.boot);
  for (const drive of plan.drives) await client.putDrive(drive);
  await client.setVsock(plan.vsock);
  await client.setEntropy({});
  await client.start();
};

/** Names in a snapshot are those of `planLaunch`: what lies behind them here is this VM's own. */
function snapshotLoad(plan: LaunchPlan): SnapshotLoad {
  return {
    snapshot_path: insideName(plan, 'fc-snapshot-state'),
    mem_backend: { backend_type: 'File', backend_path: insideName(plan, 'fc-snapshot-memory') },
    resume_vm: true,
  };
}

async function check(
  programs: { binary: string | null; jailer: string | null; socat: string | null },
  kvm_device: string,
): Promise<SelfTest> {
  const { binary, jailer } = programs;
  if (binary === null) return { ok: false, reason: 'firecracker is not installed', install: INSTALL };
  try {
    accessSync(kvm_device, constants.R_OK | constants.W_OK);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    return { ok: false, reason: `${kvm_device} cannot be opened (${code})`, install: INSTALL_KVM };
  }
  if (programs.socat === null) return { ok: false, reason: 'socat is not installed', install: INSTALL_SOCAT };
  const versions: string[] = [];
  for (const program of jailer === null ? [binary] : [binary, jailer]) {
    const version = await versionOf(program);
    if (version instanceof Error)
      return { ok: false, reason: `${program} does not run: ${version.message}`, install: INSTALL };
    versions.push(version);
  }
  if (versions[1] !== undefined && versions[0] !== versions[1])
    return {
      ok: false,
      reason: `firecracker is ${versions[0]}, the jailer is ${versions[1]}: they belong together`,
      install: INSTALL,
    };
  const jail = jailer === null ? 'without jailer' : 'with jailer';
  return { ok: true, detail: `Firecracker ${versions[0]}, ${jail}; no network card, vsock only` };
}

/** `Firecracker v1.16.1` and `Jailer v1.16.1` on the first line. */
async function versionOf(program: string): Promise<string | Error> {
  try {
    const { stdout } = await promisify(execFile)(program, ['--version'], {
      timeout: 5000,
      maxBuffer: 65_536,
    });
    const version = /^(?:Firecracker|Jailer) (v\S+)/m.exec(stdout)?.[1];
    return (
      version ?? new Error(`${basename(program)} --version said ${JSON.stringify(stdout.slice(0, 100))}`)
    );
  } catch (error) {
    return error as Error;
  }
}
