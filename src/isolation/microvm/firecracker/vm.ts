import { type ChildProcess, spawn } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { readProc } from '../../marks.ts';
import { removeTree } from '../../scratch.ts';
import type { Vm, VmChannel, VmEnd, VmNetwork, VmRecord } from '../hypervisor.ts';
import { openShortFolder, type ShortFolder } from '../short-path.ts';
import { removeCgroups } from './cgroup.ts';
import { type Channel, listenOnChannel } from './channel.ts';
import { CHANNEL_PORTS, CONSOLE_NAME, EGRESS_PORT, LOG_NAME, STATE_NAME, STDERR_NAME } from './launch.ts';
import { watchLogFile } from './log-file.ts';

import { bridgeGuestTo, forwardPort, type Listener, socketOfPort, VSOCK_NAME } from './vsock.ts';

/**
 * The host's side of one running Firecracker: its channels, its bridges, its end, and what has to go afterwards. Made
 * by a start, or again by the next engine from what `saveState` wrote into the VM's folder.
 */
const MESSAGE_CHARACTERS = 2000;
const LOOK_MS = 200;

const NETWORK = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('none') }),
  z.object({ kind: z.literal('egress'), socket_path: z.string() }),
  z.object({
    ...{ kind: z.literal('forward'), outbound: z.boolean() },
    ...{ host_port: z.number().int(), guest_port: z.number().int() },
  }),
]);
const STATE = z.object({
  /** Relative to the VM's folder, which may be renamed. */
  root: z.string(),
  jailed: z.boolean(),
  cgroup_dirs: z.array(z.string()),
  network: NETWORK,
});
export type VmState = z.infer<typeof STATE>;

export async function saveState(dir: string, state: VmState): Promise<void> {
  await writeFile(join(dir, STATE_NAME), JSON.stringify(state), { mode: 0o600 });
}

/** Null when the folder is not that of a VM of ours. */
export async function loadState(dir: string): Promise<VmState | null> {
  try {
    return STATE.parse(JSON.parse(await readFile(join(dir, STATE_NAME), 'utf8')));
  } catch {
    return null;
  }
}

/** Null for a process that is gone or a zombie. */
export function startTime(pid: number): string | null {
  const text = readProc(`/proc/${pid}/stat`);
  if (text === null) return null;
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return fields[0] === 'Z' || fields[0] === 'X' ? null : (fields[19] ?? null);
}

export interface Bridges {
  folder: ShortFolder;
  channels: Map<VmChannel['name'], Channel>;
  close(reason: string): Promise<void>;
}

/** Opens the host's side of the vsock, before the guest can call. `outbound_socket`: the proxy of instances. */
export async function openBridges(o: {
  root: string;
  channels: readonly VmChannel[];
  network: VmNetwork;
  outbound_socket: string | null;
}): Promise<Bridges> {
  const folder = openShortFolder(o.root);
  const channels = new Map<VmChannel['name'], Channel>();
  const listeners: Listener[] = [];
  const folders = [folder];
  const close = async (reason: string) => {
    await Promise.all([...channels.values()].map((channel) => channel.close(reason)));
    await Promise.all(listeners.map((listener) => listener.close()));
    for (const one of folders) one.close();
  };
  try {
    for (const { name, to } of o.channels)
      if (to === 'socket')
        channels.set(name, await listenOnChannel(name, folder.path(socketOfPort(CHANNEL_PORTS[name]))));
    const proxy = proxyOf(o.network, o.outbound_socket);
    if (proxy !== null) {
      const beside = openShortFolder(dirname(proxy));
      folders.push(beside);
      const target_path = beside.path(basename(proxy));
      listeners.push(
        await bridgeGuestTo({ socket_path: folder.path(socketOfPort(EGRESS_PORT)), target_path }),
      );
    }
    if (o.network.kind === 'forward') {
      const { host_port, guest_port } = o.network;
      listeners.push(await forwardPort({ host_port, guest_port, socket_path: folder.path(VSOCK_NAME) }));
    }
    return { folder, channels, close };
  } catch (error) {
    await close('the VM was not started');
    throw error;
  }
}

function proxyOf(network: VmNetwork, outbound_socket: string | null): string | null {
  if (network.kind === 'egress') return network.socket_path;
  if (network.kind === 'none' || !network.outbound) return null;
  if (outbound_socket === null)
    throw new Error(
      'Firecracker VMs have no network card: for instances that may reach the world, give the driver a proxy (outbound_socket)',
    );
  return outbound_socket;
}

type Ended = Promise<Pick<VmEnd, 'exit_code' | 'signal'>>;

/** Everything after the process is there. `ended` never rejects. */
export function makeVm(o: { record: VmRecord; dir: string; state: VmState; bridges: Bridges; ended: Ended }) {
  const { dir } = o;
  const watched = [CONSOLE_NAME, STDERR_NAME].map((name) => watchLogFile(() => join(dir, name)));
  const log = watchLogFile(() => join(dir, o.state.root, LOG_NAME));
  const [console_log, stderr_log] = watched;
  async function finish(end: Awaited<Ended>): Promise<VmEnd> {
    const [stderr, errors] = [await stderr_log!.tail(), await log.tail()];
    const message = `${stderr.trim()}\n${errors.trim()}`.trim().slice(-MESSAGE_CHARACTERS);
    for (const one of [...watched, log]) one.close();
    await o.bridges.close('the VM has ended');
    if (o.state.jailed) await removeTree(join(dir, 'jail'));
    await removeCgroups(o.state.cgroup_dirs);
    return { ...end, message };
  }
  const vm = {
    record: o.record,
    pid: o.record.pid,
    exited: o.ended.then(finish),
    kill() {
      if (startTime(o.record.pid) === o.record.started) process.kill(o.record.pid, 'SIGKILL');
    },
    open: async (name: VmChannel['name']) => {
      const channel = o.bridges.channels.get(name);
      if (channel === undefined) throw new Error(`the VM has no socket channel ${name}`);
      return await channel.open();
    },
    console: () => console_log!.tail(),
  };
  return vm satisfies Vm;
}

/** A process that is not our child any more cannot be waited for: it is looked at. */
export async function watchStranger(record: VmRecord): Ended {
  while (startTime(record.pid) === record.started) await sleep(LOOK_MS, undefined, { ref: false });
  return { exit_code: null, signal: null };
}

export interface Started {
  child: ChildProcess;
  ended: Ended;
  /** How it ended, once it has. */
  gone: () => string | null;
}

/** Starts a process that may outlive the engine; rejects when there is no such program. */
export async function startProcess(
  argv: readonly string[],
  o: { cwd: string; env: Record<string, string>; stdout: number; stderr: number },
): Promise<Started> {
  const [file, ...args] = argv as [string, ...string[]];
  const { cwd, env } = o;
  const child = spawn(file, args, { cwd, env, detached: true, stdio: ['ignore', o.stdout, o.stderr] });
  let how: string | null = null;
  const ended: Ended = new Promise((done) => {
    child.once('exit', (exit_code, signal) => {
      how = signal ?? `exit code ${exit_code}`;
      done({ exit_code, signal });
    });
    child.once('error', (error) => {
      how ??= error.message;
      if (child.pid === undefined) done({ exit_code: null, signal: null });
    });
  });
  if (child.pid === undefined) {
    await ended;
    throw new Error(`${file} could not be started: ${how}`);
  }
  return { child, ended, gone: () => how };
}
