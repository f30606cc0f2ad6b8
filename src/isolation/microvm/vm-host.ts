import { randomInt } from 'node:crypto';
import { chown, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { DATA_MARK, lockLimit, MACHINE_MARK } from '../marks.ts';
import { countTasks, killTree, makeScanner, makeTree, type ProcessScanner } from '../processes.ts';
import { findProgram, limitArguments } from '../program.ts';
import { removeTree } from '../scratch.ts';
import { type BootFiles, bootFiles } from './boot.ts';
import type { BuilderImage } from './builder-image/image.ts';
import { type Conversation, converse } from './conversation.ts';
import { GUEST_OVERHEAD_BYTES } from './drives.ts';
import type { GuestEvent } from './guest/protocol.ts';
import type { Hypervisor, Vm, VmChannel, VmDrive, VmEnd, VmNetwork, VmSpec } from './hypervisor.ts';

/** Far from users of the host and from the ranges of container tools. */
const FIRST_USER = 1_700_000_000;
const USERS = 1 << 24;
const BOOT_MS = 10_000;
const LOG_FILE_BYTES = 64 * 1024 * 1024;

/** What the VMs of one driver object share. */
export interface VmHost {
  hypervisor: Hypervisor;
  scanner: ProcessScanner;
  data_key: string;
  work_dir: string;
  search_path: string;
  boot(): Promise<BootFiles>;
}

export function openVmHost(o: {
  hypervisor: Hypervisor;
  image: BuilderImage;
  data_key: string;
  work_dir: string;
  search_path: string;
}): VmHost {
  let files: Promise<BootFiles> | undefined;
  return {
    hypervisor: o.hypervisor,
    scanner: makeScanner(),
    data_key: o.data_key,
    work_dir: o.work_dir,
    search_path: o.search_path,
    boot() {
      files ??= (async () => bootFiles(o.image, (await o.hypervisor.guestFiles?.()) ?? []))();
      return files;
    },
  };
}

/** A folder that only this VM's own user can enter. Every VM has another user: one that breaks out meets no other. */
export async function makeVmDir(host: VmHost, id: string): Promise<{ dir: string; user: VmSpec['user'] }> {
  const dir = join(host.work_dir, id);
  await removeTree(dir);
  await mkdir(dir, { recursive: true, mode: 0o700 });
  if (process.getuid?.() !== 0) return { dir, user: null };
  const number = FIRST_USER + randomInt(USERS);
  await chown(dir, number, number);
  return { dir, user: { uid: number, gid: number } };
}

export interface BootPlan {
  id: string;
  dir: string;
  user: VmSpec['user'];
  drives: VmDrive[];
  channels: VmChannel[];
  network: VmNetwork;
  vcpus: number;
  /** What the job may use; the VM has more. */
  memory_bytes: number;
  max_file_bytes: number;
  survives_engine: boolean;
  /** Default: the host's patience times the hypervisor's slowness. */
  boot_ms?: number;
  on_event: (event: GuestEvent) => void;
}

export interface BootedVm {
  vm: Vm;
  talk: Conversation;
}

/** Starts a VM and waits until its agent asks for a job. Rejects with what went wrong, and then nothing runs. */
export async function bootVm(host: VmHost, plan: BootPlan): Promise<BootedVm> {
  const { hypervisor } = host;
  const { id, dir, user, drives, channels, network, vcpus, survives_engine } = plan;
  const max_file_bytes = plan.max_file_bytes + LOG_FILE_BYTES;
  const vm = await hypervisor.start({
    id,
    dir,
    user,
    drives,
    channels,
    network,
    vcpus,
    survives_engine,
    max_file_bytes,
    ...(await host.boot()),
    cmdline: [
      `kiln.drives=${drives.map(({ name }) => name).join(',')}`,
      `kiln.names=${hypervisor.drive_names}`,
      `kiln.channels=${hypervisor.channels}`,
    ],
    memory_bytes: plan.memory_bytes + GUEST_OVERHEAD_BYTES,
    marks: vmMarks(host, id),
    limit_arguments: limitArguments({
      prlimit: findProgram('prlimit', host.search_path),
      limits: { disk_bytes: max_file_bytes, processes: 64 },
      user_tasks: user === null ? countTasks() : 0,
      lock_limit: lockLimit(`${host.data_key}/${id}`),
    }),
  });
  const boot_ms = plan.boot_ms ?? BOOT_MS * hypervisor.slowness;
  try {
    const talk = converse(await vm.open('control'), plan.on_event);
    const ended = vm.exited.then((end) => ({ end }));
    const booted = talk.last('booted') ?? (await Promise.race([talk.next('booted', boot_ms), ended]));
    if (booted !== null && 'event' in booted) return { vm, talk };
    const broken = talk.last('broken');
    talk.close();
    throw new Error(
      broken !== null
        ? `the guest could not be set up: ${broken.step}`
        : await describeEnd(
            vm,
            booted === null ? null : booted.end,
            `no sign of life within ${boot_ms} ms of its start`,
          ),
    );
  } catch (error) {
    await endVm(host, id, vm);
    throw error;
  }
}

/** Marks and limits by which a sweep finds the VM's processes (../marks.ts). */
function vmMarks(host: VmHost, id: string): Record<string, string> {
  return { [MACHINE_MARK]: id, [DATA_MARK]: host.data_key };
}

/** Kills a VM with all its helpers; afterwards nothing of it runs. */
export async function endVm(host: VmHost, id: string, vm: Vm | null): Promise<void> {
  vm?.kill();
  await vm?.exited;
  await killTree(makeTree(`${host.data_key}/${id}`, null), host.scanner, () => []);
}

/** Why a VM is no more, in one sentence: what the kernel said last, else how the hypervisor ended. */
export async function describeEnd(vm: Vm, end: VmEnd | null, hung: string): Promise<string> {
  const console = await vm.console();
  const agent = /^kiln: ([^\r\n]*)/m.exec(console)?.[1];
  if (agent !== undefined) return `the guest could not be set up: ${agent}`;
  const panic = /Kernel panic - not syncing: ([^\r\n]*)/.exec(console)?.[1];
  if (panic !== undefined) return `the guest's kernel panicked: ${panic.trim().slice(0, 300)}`;
  if (end === null) return `the virtual machine hangs: ${hung}`;
  const how = end.signal === null ? `exit status ${end.exit_code}` : `signal ${end.signal}`;
  return `the hypervisor died (${how})${end.message === '' ? '' : `: ${end.message.slice(0, 500)}`}`;
}
