import { setTimeout as sleep } from 'node:timers/promises';
import type { CacheFolder, ExitReason, Machine, MachineExit, MachineSpec } from '../driver.ts';
import { readStatus } from '../machine.ts';
import type { Egress } from '../network/policy.ts';
import { makeGate } from '../output.ts';
import { removeTree } from '../scratch.ts';
import { AGAIN_MS, type Conversation } from './conversation.ts';
import { returnCache } from './drives.ts';
import { takeOutput } from './exchange.ts';
import { type GuestEvent, readPorts, type Usage } from './guest/protocol.ts';
import type { Vm, VmEnd } from './hypervisor.ts';
import type { Unpack } from './options.ts';
import { type BootedVm, describeEnd, endVm, type VmHost } from './vm-host.ts';

/**
 * The life of one machine in a VM, from its booted agent on:
 *
 *   go ──► started ──► over ──► all output here ──► workspace taken ──► VM killed, folder removed ──► exited
 *              │  time or log limit, no heartbeat, the VM's own death: killed at once, nothing is taken
 *              │  memory, processes, disk: the agent ends the command and says so; nothing is taken
 *              └─ stop(): the agent sends TERM to all; what is left when the grace ends is killed with the VM
 */
const HEARTBEAT_MS = 8000;
const UNPACK_JOB_MS = 60_000;
/** Packing and writing out the workspace. */
const FINISH_MS = 10 * 60_000;
const DRAIN_MS = 10_000;
const ASK_MS = 5000;

export interface RunParts {
  host: VmHost;
  spec: Pick<MachineSpec, 'id' | 'limits' | 'on_output'>;
  dir: string;
  /** What becomes of the result; null for instances. */
  workspace: { unpack: Unpack; dir: string; bytes: number; path: string } | null;
  /** Starts to deliver what the command writes. */
  open_output(vm: Vm, receive: Receive): Promise<OutputReader>;
  egress: Egress | null;
  cache: CacheFolder | null;
  /** Called once nothing of the machine is left. */
  on_gone: () => void;
}

export type Receive = (stream: 'stdout' | 'stderr', chunk: Buffer) => void;

export interface OutputReader {
  /** Looks for more at once; for readers that only look from time to time. */
  poll?(): Promise<void>;
  /** Stops delivering. */
  close(): Promise<void>;
}

/** Output of a machine that dies with this engine: straight from the VM, which waits when we are slow. */
export async function readSockets(vm: Vm, receive: Receive): Promise<OutputReader> {
  for (const name of ['stdout', 'stderr'] as const) {
    const channel = await vm.open(name);
    channel.on('error', () => channel.destroy());
    channel.on('data', (chunk: Buffer) => receive(name, chunk));
  }
  return { close: async () => undefined };
}

export class VmRun {
  readonly parts: RunParts;
  vm!: Vm;
  talk!: Conversation;
  reason: ExitReason = 'exited';
  detail: string | null = null;
  started_at = 0;
  ended_at: number | null = null;
  peak: Usage = { memory_bytes: 0, processes: 0, cpu_us: 0, disk_bytes: 0 };
  received = { stdout: 0, stderr: 0 };
  gate: ReturnType<typeof makeGate>;
  timers: NodeJS.Timeout[] = [];
  kill_at: number | null = null;
  kill_timer: NodeJS.Timeout | undefined;
  gone = false;
  let_go = false;
  end: VmEnd | null = null;
  output: OutputReader | undefined;

  constructor(parts: RunParts) {
    this.parts = parts;
    this.gate = makeGate(parts.spec, () => this.fail('log_limit'));
  }

  /** Gives the job to a booted VM. Rejects when the command was not started; the caller then clears away. */
  async start(booted: BootedVm): Promise<Machine> {
    const { host } = this.parts;
    await this.attach(booted);
    const ended = this.vm.exited.then(() => null);
    const started = this.talk.next('started', UNPACK_JOB_MS * host.hypervisor.slowness);
    this.talk.say('go');
    if ((await Promise.race([started, ended])) === null) {
      const broken = this.talk.last('broken')?.step;
      throw new Error(broken ?? (await describeEnd(this.vm, this.end, 'the job was not started in time')));
    }
    return this.supervise();
  }

  /** Takes a VM, whether its command is still to come or runs already. */
  async attach(booted: BootedVm): Promise<void> {
    this.vm = booted.vm;
    this.talk = booted.talk;
    void this.vm.exited.then((end) => {
      this.end = end;
    });
    this.output = await this.parts.open_output(this.vm, (name, chunk) => {
      this.received[name] += chunk.length;
      this.gate(name, chunk);
    });
  }

  supervise(): Machine {
    const { spec, host } = this.parts;
    this.started_at = performance.now();
    const { time_ms } = spec.limits;
    if (time_ms !== null)
      this.timers.push(setTimeout(() => this.fail('timed_out'), Math.min(time_ms, 2 ** 31 - 1)));
    this.timers.push(setInterval(() => this.checkHeartbeat(), 500));
    const exited = this.follow();
    return {
      id: spec.id,
      pid: this.vm.pid,
      exited,
      stop: async (grace_ms) => {
        this.stop(grace_ms);
        return await exited;
      },
      listening: async () => {
        if (this.gone) return [];
        const patience_ms = ASK_MS * host.hypervisor.slowness;
        return readPorts((await this.talk.ask('ports', 'ports', patience_ms))?.rows ?? []);
      },
      usage: async () => {
        const patience_ms = ASK_MS * host.hypervisor.slowness;
        const beat = this.gone ? null : await this.talk.ask('usage', 'beat', patience_ms);
        const { memory_bytes = 0, processes = 0 } = beat ?? {};
        return { memory_bytes, processes };
      },
    };
  }

  on(event: GuestEvent): void {
    if (event.event === 'beat' || event.event === 'over')
      for (const key of Object.keys(this.peak) as (keyof Usage)[])
        this.peak[key] = Math.max(this.peak[key], event[key]);
    if (event.event === 'limit') this.reasonIs(event.reason);
    if (event.event === 'over') {
      this.ended_at = performance.now();
      if (event.reason !== 'exited') this.reasonIs(event.reason);
    }
    if (event.event === 'cache' && event.state !== 'kept') {
      const why =
        event.state === 'emptied'
          ? 'the cache was nearly full and was emptied'
          : 'the cache was damaged and is not used';
      this.gate('stderr', Buffer.from(`[kiln] ${why}\n`));
    }
  }

  reasonIs(reason: ExitReason): void {
    if (this.reason === 'exited' || this.reason === 'killed') this.reason = reason;
  }

  /** The host's own verdict: at once, with the whole VM. */
  fail(reason: ExitReason, detail: string | null = null): void {
    if (this.ended_at !== null && reason !== 'machine_failed') return;
    this.reasonIs(reason);
    this.detail ??= detail;
    this.vm?.kill();
  }

  checkHeartbeat(): void {
    if (this.ended_at !== null) return;
    const patience_ms = HEARTBEAT_MS * this.parts.host.hypervisor.slowness;
    const silent_ms = performance.now() - this.talk.heard_at();
    if (silent_ms < patience_ms) return;
    this.fail(
      'machine_failed',
      `the virtual machine hangs: no sign of life for ${Math.round(silent_ms / 1000)} s`,
    );
  }

  stop(grace_ms: number): void {
    if (this.gone || this.ended_at !== null || this.end !== null) return;
    this.reasonIs('killed');
    const kill_at = performance.now() + grace_ms;
    if (this.kill_at === null && grace_ms > 0) this.terminate();
    if (this.kill_at !== null && this.kill_at <= kill_at) return;
    this.kill_at = kill_at;
    clearTimeout(this.kill_timer);
    // What has ended in time is taken in peace.
    this.kill_timer = setTimeout(() => this.ended_at ?? this.vm.kill(), grace_ms);
  }

  /** Said until it is over: see Conversation.ask. The agent means it once. */
  terminate(): void {
    this.talk.say('term');
    this.timers.push(setInterval(() => this.talk.say('term'), AGAIN_MS));
  }

  async follow(): Promise<MachineExit> {
    try {
      await this.followToEnd();
    } catch (error) {
      this.reason = 'machine_failed';
      this.detail ??= error instanceof Error ? error.message : String(error);
    }
    const duration_ms = Math.round((this.ended_at ?? performance.now()) - this.started_at);
    const over = this.talk.last('over');
    await this.clear();
    const status = over === null ? { exit_code: null, signal: 'SIGKILL' } : readStatus(over.code, null);
    return {
      reason: this.reason,
      ...status,
      peak_memory_bytes: this.peak.memory_bytes,
      peak_processes: this.peak.processes,
      duration_ms,
      cpu_ms: Math.round(this.peak.cpu_us / 1000),
      disk_bytes: this.peak.disk_bytes,
      hosts: this.parts.egress?.contacts() ?? [],
      detail: this.detail,
    };
  }

  async followToEnd(): Promise<void> {
    const ended = this.vm.exited.then(() => null);
    const over = this.talk.last('over') ?? (await Promise.race([this.whenOver(), ended]));
    for (const timer of this.timers) clearTimeout(timer);
    if (over === null) {
      this.end = await this.vm.exited;
      if (this.reason !== 'exited') return;
      this.reason = 'machine_failed';
      this.detail = this.talk.last('broken')?.step ?? (await describeEnd(this.vm, this.end, ''));
      return;
    }
    await this.drained(over.stdout_bytes, over.stderr_bytes);
    if (this.reason === 'exited' || this.reason === 'killed') await this.takeWorkspace();
  }

  async whenOver(): Promise<Extract<GuestEvent, { event: 'over' }> | null> {
    // One day at a time: a timer holds 24 days at most, an instance lives longer.
    for (;;) {
      const over = await this.talk.next('over', 86_400_000);
      if (this.let_go) return await new Promise(() => undefined);
      if (over !== null) return over;
      if (this.end !== null || this.gone) return null;
      const died = await Promise.race([this.vm.exited, sleep(1000, null)]);
      if (died !== null) return null;
    }
  }

  /** The guest counted what it wrote; it comes on channels of their own. */
  async drained(stdout_bytes: number, stderr_bytes: number): Promise<void> {
    const give_up_at = performance.now() + DRAIN_MS;
    const { received } = this;
    for (;;) {
      await this.output?.poll?.();
      if (received.stdout >= stdout_bytes && received.stderr >= stderr_bytes) return;
      if (performance.now() > give_up_at) return;
      await sleep(10);
    }
  }

  async takeWorkspace(): Promise<void> {
    const { dir, workspace } = this.parts;
    if (workspace === null) return;
    const ended = this.vm.exited.then(() => null);
    const done = this.talk.last('done') ?? (await Promise.race([this.talk.next('done', FINISH_MS), ended]));
    const output = this.talk.last('output');
    if (done === null || output === null)
      throw new Error(
        `the result did not come out: ${await describeEnd(this.vm, this.end, 'it was not written in time')}`,
      );
    if (output.failed !== 0 || output.bytes > workspace.bytes) {
      this.reason = 'out_of_disk';
      this.detail =
        'the workspace does not fit on the output drive: it holds sparse files larger than the disk limit';
      return;
    }
    await takeOutput({
      unpack: workspace.unpack,
      output_path: workspace.path,
      bytes: output.bytes,
      max_bytes: workspace.bytes,
      dir,
      workspace_dir: workspace.dir,
    }).catch((error: Error) => {
      throw new Error(`the result was refused: ${error.message}`);
    });
  }

  /** The machine goes on without this engine; its `exited` stays open for ever. */
  async letGo(): Promise<void> {
    for (const timer of this.timers) clearTimeout(timer);
    clearTimeout(this.kill_timer);
    this.let_go = true;
    this.talk.close();
    await this.output?.poll?.();
    await this.output?.close();
  }

  /** Afterwards nothing of the machine is left on the host. */
  async clear(): Promise<void> {
    const { host, dir, egress, cache, on_gone } = this.parts;
    for (const timer of this.timers) clearTimeout(timer);
    clearTimeout(this.kill_timer);
    await endVm(host, this.vm.record.id, this.vm);
    this.gone = true;
    this.talk?.close();
    await this.output?.close();
    await egress?.close().catch(() => undefined);
    if (cache) await returnCache(cache, dir);
    await removeTree(dir);
    on_gone();
  }
}
