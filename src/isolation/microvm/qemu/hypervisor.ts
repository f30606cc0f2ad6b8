import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants, copyFileSync, linkSync, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { Duplex } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { SelfTest } from '../../driver.ts';
import { readProc } from '../../marks.ts';
import { findProgram } from '../../program.ts';
import type { Hypervisor, Vm, VmEnd, VmRecord, VmSpec } from '../hypervisor.ts';
import { connectIn } from '../short-path.ts';
import { type Accelerator, EGRESS_ADDRESS, qemuArguments } from './arguments.ts';

const CONSOLE_BYTES = 64 * 1024;
const MESSAGE_BYTES = 2000;
const START_MS = 10_000;
/** Measured: an emulated guest boots in 2 s what KVM boots in 0.3 s, and shared test machines are slower still. */
const SLOWNESS: Record<Accelerator, number> = { kvm: 1, tcg: 8 };
const PACKAGE = 'apt-get install qemu-system-x86';

export interface QemuOptions {
  accelerator: Accelerator;
  search_path: string;
}

/** QEMU's `microvm` machine, with KVM or without (TCG: software emulation). */
export function qemuHypervisor(o: QemuOptions): Hypervisor {
  const find = (name: string) => findProgram(name, o.search_path);
  return {
    name: 'qemu',
    channels: 'virtio-serial',
    drive_names: 'serial',
    egress_url: `http://${EGRESS_ADDRESS}`,
    slowness: SLOWNESS[o.accelerator],
    check: () => check(o.accelerator, find('qemu-system-x86_64')),
    async start(spec) {
      const qemu = find('qemu-system-x86_64');
      const setpriv = find('setpriv');
      const socat = find('socat');
      if (qemu === null) throw new Error('qemu-system-x86_64 is not installed');
      if (spec.network.kind === 'egress' && socat === null)
        throw new Error(
          'socat is not installed: QEMU reaches the network proxy through it (apt-get install socat)',
        );
      const { accelerator } = o;
      const args = qemuArguments({
        spec,
        accelerator,
        names: bringIn(spec),
        socat,
        tsc_khz: processorClock(),
      });
      const bound = setpriv === null || spec.survives_engine ? [] : ['--pdeathsig', 'KILL'];
      const privileges = setpriv === null ? [] : [setpriv, '--no-new-privs', ...bound, '--'];
      return await launch(spec, [...privileges, ...spec.limit_arguments, qemu, ...args], accelerator);
    },
    async adopt(record, spec) {
      if (startTime(record.pid) !== record.started) return null;
      return makeVm(record, spec.dir, watchStranger(record));
    },
  };
}

async function check(accelerator: Accelerator, qemu: string | null): Promise<SelfTest> {
  if (qemu === null) return { ok: false, reason: 'qemu-system-x86_64 is not installed', install: PACKAGE };
  if (accelerator === 'kvm') {
    try {
      accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
    } catch {
      const reason = '/dev/kvm cannot be opened: no hardware virtualisation here, or not for this user';
      return {
        ok: false,
        reason,
        install: 'adduser the engine’s user to group kvm, or enable virtualisation',
      };
    }
  }
  try {
    const { stdout } = await promisify(execFile)(qemu, ['-M', 'help'], { timeout: START_MS });
    if (/^microvm\b/m.test(stdout)) return { ok: true, detail: 'qemu knows the machine type microvm' };
    return { ok: false, reason: 'this QEMU has no machine type microvm', install: PACKAGE };
  } catch (error) {
    return {
      ok: false,
      reason: `qemu does not run: ${(error as Error).message.slice(0, 200)}`,
      install: PACKAGE,
    };
  }
}

/** As the kernel measured it; null where it does not say. kHz. */
function processorClock(): number | null {
  const mhz = /^cpu MHz\s*:\s*([\d.]+)/m.exec(readProc('/proc/cpuinfo') ?? '')?.[1];
  return mhz === undefined ? null : Math.round(Number(mhz) * 1000);
}

/** Every file of the VM under a name in its folder; shared ones (kernel, root) are linked there, or copied. */
function bringIn(spec: VmSpec): Map<string, string> {
  const names = new Map<string, string>();
  const shared = (path: string, name: string) => {
    if (dirname(path) === spec.dir) return names.set(path, basename(path));
    const into = join(spec.dir, name);
    try {
      linkSync(path, into);
    } catch (error) {
      if (!['EXDEV', 'EMLINK', 'EPERM'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
      copyFileSync(path, into, constants.COPYFILE_FICLONE);
    }
    return names.set(path, name);
  };
  shared(spec.kernel, 'kernel');
  shared(spec.initramfs, 'initramfs');
  for (const drive of spec.drives) shared(drive.path, `${drive.name}.img`);
  return names;
}

/** Who can open /dev/kvm: a user without rights can, where a group may; else QEMU stays the engine's user. */
function kvmUser(user: VmSpec['user']): VmSpec['user'] {
  const info = statSync('/dev/kvm');
  if (user === null || (info.mode & 0o006) === 0o006) return user;
  return (info.mode & 0o060) === 0o060 && info.gid !== 0 ? { uid: user.uid, gid: info.gid } : null;
}

async function launch(spec: VmSpec, command: readonly string[], accelerator: Accelerator): Promise<Vm> {
  const user = accelerator === 'kvm' ? kvmUser(spec.user) : spec.user;
  const [file, ...args] = command as [string, ...string[]];
  const log = await open(join(spec.dir, 'hypervisor.log'), 'a', 0o644);
  let child: ChildProcess;
  try {
    child = spawn(file, args, {
      cwd: spec.dir,
      env: { PATH: '/usr/bin:/bin', ...spec.marks },
      detached: true,
      stdio: ['ignore', log.fd, log.fd],
      ...(user === null ? {} : user),
    });
  } finally {
    await log.close();
  }
  const ended = once(child, 'exit').then(
    ([exit_code, signal]) => ({ exit_code, signal }) as Omit<VmEnd, 'message'>,
    () => ({ exit_code: null, signal: null }),
  );
  if (child.pid === undefined) {
    await ended;
    throw new Error(`${file} could not be started`);
  }
  if (spec.survives_engine) child.unref();
  const record = { id: spec.id, pid: child.pid, started: startTime(child.pid) ?? '' };
  const vm = makeVm(record, spec.dir, ended);
  await listening(spec, vm);
  return vm;
}

/** The sockets are there once QEMU has read its command line; what is wrong with it shows as an early end. */
async function listening(spec: VmSpec, vm: Vm): Promise<void> {
  const sockets = spec.channels
    .filter(({ to }) => to === 'socket')
    .map(({ name }) => join(spec.dir, `${name}.sock`));
  const give_up_at = performance.now() + START_MS;
  let end: VmEnd | undefined;
  void vm.exited.then((value) => {
    end = value;
  });
  const missing = () => sockets.some((path) => statSync(path, { throwIfNoEntry: false }) === undefined);
  while (missing()) {
    if (end !== undefined)
      throw new Error(
        `QEMU ended at once (${end.signal ?? `exit ${end.exit_code}`}): ${end.message || 'it said nothing'}`,
      );
    if (performance.now() > give_up_at) {
      vm.kill();
      throw new Error(`QEMU did not come up within ${START_MS} ms`);
    }
    await sleep(5);
  }
}

function makeVm(record: VmRecord, dir: string, ended: Promise<Omit<VmEnd, 'message'>>): Vm {
  const exited = ended.then(async (end) => ({
    ...end,
    message: (await tail(join(dir, 'hypervisor.log'), MESSAGE_BYTES)).trim(),
  }));
  return {
    record,
    pid: record.pid,
    exited,
    kill() {
      if (startTime(record.pid) === record.started) process.kill(record.pid, 'SIGKILL');
    },
    open: (channel) => connectSoon(dir, `${channel}.sock`, () => startTime(record.pid) === record.started),
    console: () => tail(join(dir, 'console.log'), CONSOLE_BYTES),
  };
}

/** A socket has its name a moment before it listens: QEMU binds it first, and a busy host may pause it there. */
async function connectSoon(dir: string, name: string, is_alive: () => boolean): Promise<Duplex> {
  const give_up_at = performance.now() + START_MS;
  for (;;)
    try {
      return await connectIn(dir, name);
    } catch (error) {
      const refused = (error as NodeJS.ErrnoException).code === 'ECONNREFUSED';
      if (!refused || !is_alive() || performance.now() > give_up_at) throw error;
      await sleep(5);
    }
}

/** A process that is not our child any more cannot be waited for: it is looked at. */
async function watchStranger(record: VmRecord): Promise<Omit<VmEnd, 'message'>> {
  while (startTime(record.pid) === record.started) await sleep(250, undefined, { ref: false });
  return { exit_code: null, signal: null };
}

/** Null for a process that is gone or a zombie. */
function startTime(pid: number): string | null {
  const text = readProc(`/proc/${pid}/stat`);
  if (text === null) return null;
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return fields[0] === 'Z' || fields[0] === 'X' ? null : (fields[19] ?? null);
}

async function tail(path: string, bytes: number): Promise<string> {
  const file = await open(path).catch(() => null);
  if (file === null) return '';
  try {
    // A guest's kernel that is lost may have written without end: only the end is read.
    const { size } = await file.stat();
    const length = Math.min(size, bytes);
    const { buffer } = await file.read(Buffer.alloc(length), 0, length, size - length);
    return buffer.toString('latin1');
  } finally {
    await file.close();
  }
}
