import { setTimeout as sleep } from 'node:timers/promises';
import type Docker from 'dockerode';
import type { ExitReason, Limits, Machine, MachineExit } from '../driver.ts';
import { readStatus } from '../machine.ts';
import { signal } from '../processes.ts';
import { namespacePorts } from '../sockets.ts';
import { makeSampler, type Sampler, watchMachine } from '../watchdog.ts';
import { type Cgroup, openCgroup } from './cgroup.ts';
import { isGone, isUnreachable } from './engine.ts';

/**
 * The life of one container, a machine's or an instance's, from the moment it runs:
 *
 *   running ──► main command ended ──► output drained ──► container removed, cleaned up ──► exited
 *      │  limit exceeded: killed at once
 *      └─ stop(): TERM to all; those that go on have until the grace ends, then KILL
 *
 * The kernel holds memory and tasks (cgroup) and kills everybody with the container's init; what is watched here is
 * what it does not hold or say: processes (its limit counts threads), peaks, disk, time.
 */
export interface Life {
  id: string;
  container: Docker.Container;
  /** Host pid of the container's init. */
  pid: number;
  limits: Limits;
  /** The signal by which the image wants to be stopped, if it is not TERM: sent to its main process alone. */
  stop_signal: string | null;
  sampler: Sampler;
  /** Resolves when all output was delivered; called once the container has ended. */
  drained(patience_ms: number): Promise<void>;
  /** Removes what belongs to the machine; adds what only the driver knows. */
  cleanUp(): Promise<Partial<MachineExit>>;
}

const DRAIN_MS = 5000;
/** A restart of the daemon takes seconds; with `live-restore` containers go on meanwhile. */
const DAEMON_PATIENCE_MS = 60_000;
const DAEMON_RETRY_MS = 500;
const LOOK_MS = 2000;

/** One sampler per driver: control groups name a machine's processes, so there is nothing to scan. */
export function containerSampler(): Sampler {
  return makeSampler({ scan: () => new Map() });
}

export class ContainerRun {
  readonly life: Life;
  readonly cgroup: Cgroup;
  readonly watch: ReturnType<typeof watchMachine>;
  readonly watched: { sample(table: Parameters<ReturnType<typeof watchMachine>['sample']>[0]): boolean };
  readonly abandon = new AbortController();
  exited: Promise<MachineExit>;
  reason: ExitReason = 'exited';
  ended = false;
  cpu_ms: number | null = null;
  timer: NodeJS.Timeout | undefined;
  started_at = performance.now();
  /** When a requested stop turns into KILL; null while none was requested. */
  kill_at: number | null = null;
  stopping: Promise<void> | undefined;

  constructor(life: Life) {
    this.life = life;
    this.cgroup = openCgroup(life.pid);
    this.watch = watchMachine(
      life.limits,
      () => this.pids(),
      (reason) => this.fail(reason),
    );
    this.watched = {
      sample: (table) => {
        this.cpu_ms = this.cgroup.cpuMs() ?? this.cpu_ms;
        // A killed worker is as bad as a killed main process: half an app must not look healthy.
        if (this.cgroup.memoryKills() > 0) this.fail('out_of_memory');
        return this.watch.sample(table);
      },
    };
    life.sampler.add(this.watched);
    const { time_ms } = life.limits;
    if (time_ms !== null)
      this.timer = setTimeout(() => this.fail('timed_out'), Math.min(time_ms, 2 ** 31 - 1));
    this.exited = this.finish();
  }

  machine(): Machine {
    return {
      id: this.life.id,
      pid: this.life.pid,
      exited: this.exited,
      stop: async (grace_ms) => {
        this.stop(grace_ms);
        return await this.exited;
      },
      listening: async () => (this.ended ? [] : namespacePorts(this.life.pid)),
      usage: async () => this.watch.measure(new Map()),
    };
  }

  /** The machine's own processes: without the init that Docker puts in front. */
  pids(): number[] {
    return this.cgroup.pids().filter((pid) => pid !== this.life.pid);
  }

  /** A limit was exceeded: the first reason counts, everything dies at once. */
  fail(reason: ExitReason): void {
    if (this.ended || this.abandon.signal.aborted) return;
    if (this.reason === 'exited') this.reason = reason;
    this.kill_at = 0;
    this.stopping ??= this.end();
  }

  stop(grace_ms: number): void {
    if (this.reason === 'exited' && !this.ended) this.reason = 'killed';
    this.kill_at = Math.min(this.kill_at ?? Number.POSITIVE_INFINITY, performance.now() + grace_ms);
    this.stopping ??= this.end();
  }

  async end(): Promise<void> {
    const { stop_signal } = this.life;
    if (this.kill_at! > performance.now()) {
      if (stop_signal === null) await this.terminateAll();
      else {
        await this.send(stop_signal);
        await this.waitForEnd();
      }
    }
    if (!this.ended) await this.send('SIGKILL');
  }

  /** Until nothing is left or the grace is over; the init then reports the main command's own status. */
  async terminateAll(): Promise<void> {
    // The init ends with the main command and takes the rest along: hold it while they shut down.
    await this.send('SIGSTOP');
    const told = new Set<number>();
    let refused = false;
    for (let wait_ms = 5; this.kill_at! > performance.now(); wait_ms = Math.min(wait_ms * 2, 50)) {
      const pids = this.pids();
      if (this.ended || pids.length === 0) break;
      for (const pid of pids.filter((one) => !told.has(one))) {
        told.add(pid);
        refused ||= !signal(pid, 'SIGTERM') && told.size === 1;
      }
      if (refused) break;
      await sleep(Math.min(wait_ms, Math.max(1, this.kill_at! - performance.now())));
    }
    if (this.kill_at! <= performance.now()) return;
    await this.send('SIGCONT');
    // An engine that is not root may not signal an image's users: the init passes it to the main process.
    if (refused) await this.send('SIGTERM');
    await this.waitForEnd();
  }

  async waitForEnd(): Promise<void> {
    while (!this.ended && this.kill_at! > performance.now())
      await sleep(Math.min(50, Math.max(1, this.kill_at! - performance.now())));
  }

  async send(name: string): Promise<void> {
    // A container that ended meanwhile answers 409; a daemon that is away is asked again by whoever waits.
    await this.life.container.kill({ signal: name }).catch(() => undefined);
  }

  async finish(): Promise<MachineExit> {
    const end = await this.untilEnded();
    this.ended = true;
    const duration_ms = Math.round(performance.now() - this.started_at);
    clearTimeout(this.timer);
    this.life.sampler.remove(this.watched);
    await this.stopping;
    await this.life.drained(DRAIN_MS);
    const more = await this.life.cleanUp();
    if (end.out_of_memory && this.reason === 'exited') this.reason = 'out_of_memory';
    if (end.lost !== null && this.reason === 'exited') this.reason = 'machine_failed';
    const status = readStatus(end.code, null);
    // The file size limit ends a writer with SIGXFSZ.
    if (this.reason === 'exited' && status.signal === 'SIGXFSZ') this.reason = 'out_of_disk';
    const { memory_bytes, processes } = this.watch.peak;
    return {
      reason: this.reason,
      ...status,
      peak_memory_bytes: memory_bytes,
      peak_processes: processes,
      duration_ms,
      cpu_ms: this.cpu_ms,
      ...(end.lost === null ? {} : { detail: end.lost }),
      ...more,
    };
  }

  /**
   * Waits on through restarts of the daemon. The wait itself says so at once, but never settles when its connection
   * breaks, so the container is looked at every 2 s as well. Never resolves once let go.
   */
  async untilEnded(): Promise<{ code: number | null; out_of_memory: boolean; lost: string | null }> {
    const { container } = this.life;
    const nothing = () => undefined;
    const wait = () => container.wait({ abortSignal: this.abandon.signal }).then(nothing, nothing);
    let unreachable_since: number | null = null;
    for (let waiting = wait(); ; ) {
      await Promise.race([waiting, sleep(LOOK_MS, undefined, { ref: false })]);
      if (this.abandon.signal.aborted) return await new Promise(() => undefined);
      try {
        const { State } = await container.inspect();
        if (!State.Running) return { code: State.ExitCode, out_of_memory: State.OOMKilled, lost: null };
        if (unreachable_since !== null) waiting = wait();
        unreachable_since = null;
      } catch (error) {
        if (isGone(error))
          return { code: null, out_of_memory: false, lost: 'The container was removed from outside.' };
        unreachable_since = isUnreachable(error) ? (unreachable_since ?? performance.now()) : null;
        if (unreachable_since !== null && performance.now() - unreachable_since > DAEMON_PATIENCE_MS)
          return {
            code: null,
            out_of_memory: false,
            lost: 'The Docker daemon went away and did not return.',
          };
        await sleep(DAEMON_RETRY_MS);
      }
    }
  }

  /** Lets go of it without ending it. */
  letGo(): void {
    this.abandon.abort();
    clearTimeout(this.timer);
    this.life.sampler.remove(this.watched);
  }
}
