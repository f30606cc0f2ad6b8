/**
 * The health gate. Rounds of probes, one probe per replica and round, all replicas as one:
 *
 *   starting  until one round in which every replica answers 2xx, at most `startup_timeout_ms`
 *   grace     every round must be 2xx throughout, for `grace_ms` since that first good round
 *
 * A replica that exits ends the gate at once, whatever the phase.
 */
import type { Failure, ListeningPort, ProbeAnswer } from '../domain/failure.ts';
import type { HeldPort } from '../domain/held-port.ts';
import type { MachineExit } from '../isolation/driver.ts';
import { diagnose, STRANGER } from './diagnose.ts';
import { isHealthy, probe } from './probe.ts';

/** What the gate needs to know of a started instance. */
export interface GateReplica {
  id: string;
  /** Read anew for each probe. */
  host: string;
  port: number;
  /** Where the app itself is to listen, when that is another port than the one probed (forwarded into a machine). */
  app_port?: number;
  /** Called when nobody listened at host and port: a chance to find the app on another address of this machine. */
  refused?(): Promise<void>;
  /** Whether the app itself listens there, and not another program of this machine; null where nobody can tell. */
  answersItself?(): Promise<boolean | null>;
  exited: Promise<MachineExit>;
  listening(): Promise<ListeningPort[]>;
  log_tail(): string[];
  memory_limit_bytes: number;
}

export interface GateProgress {
  phase: 'starting' | 'grace';
  elapsed_ms: number;
  healthy: number;
  total: number;
  /** Of the round: the answer of a replica that is not healthy, else of the last one. */
  last: ProbeAnswer | null;
}

export interface GateOptions {
  replicas: GateReplica[];
  path: string;
  startup_timeout_ms: number;
  grace_ms: number;
  probe_interval_ms: number;
  probe_timeout_ms: number;
  signal: AbortSignal;
  /** The port that the plan names and that an instance could not get. */
  held?: HeldPort | null;
  on_progress?: (progress: GateProgress) => void;
}

/** `startup_ms`: from the call to the first round in which all were healthy. */
export type GateResult = { ok: true; startup_ms: number } | { ok: false; failure: Failure };

/** While starting, probing begins much faster than the interval: a refused connection costs nothing. */
const FIRST_PAUSE_MS = 20;
const PAUSE_GROWTH = 1.5;
const MEANINGFUL_SILENCE_MS = 100;
/**
 * A connection that broke while the app was healthy mostly means that it just died. The end of its machine, which says
 * how (exit code, signal, out of memory), is known a little later than that: its leftovers are ended and its output read.
 */
const DYING_MS = 3000;
/** A driver that cannot say where the app listens must not hold up the failure. */
const LISTENING_TIMEOUT_MS = 2000;

/**
 * Waits until every replica is healthy for the whole grace period, or says why not (stage `health`).
 * Rejects only with `signal.reason`, when the signal aborts.
 */
export async function gate(options: GateOptions): Promise<GateResult> {
  const run = new Gate(options);
  try {
    return await run.result();
  } finally {
    run.end();
  }
}

class Gate {
  readonly #options: GateOptions;
  readonly #started = performance.now();
  /** Ends probes and pauses: aborted by the caller, by an exit, and at the end of the gate. */
  readonly #stop = new AbortController();
  readonly #onAbort = (): void => this.#stop.abort();
  readonly #answers = new Map<string, ProbeAnswer>();
  #exit: { replica: GateReplica; exit: MachineExit } | null = null;

  constructor(options: GateOptions) {
    this.#options = options;
    options.signal.addEventListener('abort', this.#onAbort);
    for (const replica of options.replicas) {
      void replica.exited.then((exit) => {
        this.#exit ??= { replica, exit };
        this.#stop.abort();
      });
    }
  }

  end(): void {
    this.#options.signal.removeEventListener('abort', this.#onAbort);
    this.#stop.abort();
  }

  async result(): Promise<GateResult> {
    // Already settled `exited` promises are heard first: a dead replica is not probed at all.
    await Promise.resolve();
    const deadline = new AbortController();
    const timer = setTimeout(() => deadline.abort(), this.#options.startup_timeout_ms);
    const until = AbortSignal.any([this.#stop.signal, deadline.signal]);
    const late = await this.#start(until).finally(() => clearTimeout(timer));
    if (late !== null) return this.#fail(late, 'starting');
    const startup_ms = Math.round(performance.now() - this.#started);
    const unstable = await this.#holdGrace();
    if (unstable !== null) return this.#fail(unstable, 'grace');
    return { ok: true, startup_ms };
  }

  /** The replica to blame, or null once all are healthy in one round. `until` aborts at the deadline too. */
  async #start(until: AbortSignal): Promise<GateReplica | null> {
    let pause_ms = FIRST_PAUSE_MS;
    for (;;) {
      const unhealthy = await this.#round('starting', this.#started, until);
      if (this.#exit) return this.#exit.replica;
      this.#options.signal.throwIfAborted();
      if (unhealthy === null || until.aborted) return unhealthy;
      await pause(Math.min(pause_ms, this.#options.probe_interval_ms), until);
      pause_ms *= PAUSE_GROWTH;
    }
  }

  /** The replica that broke the grace period, or null when it passed. */
  async #holdGrace(): Promise<GateReplica | null> {
    const since = performance.now();
    const ends = since + this.#options.grace_ms;
    while (performance.now() < ends) {
      const pause_ms = Math.min(this.#options.probe_interval_ms, ends - performance.now());
      await pause(pause_ms, this.#stop.signal);
      const unhealthy = await this.#round('grace', since, this.#stop.signal);
      if (this.#exit) return this.#exit.replica;
      this.#options.signal.throwIfAborted();
      if (unhealthy !== null) return unhealthy;
    }
    return this.#exit?.replica ?? null;
  }

  /** Probes every replica once; the first that is not healthy, or null. */
  async #round(
    phase: GateProgress['phase'],
    since: number,
    signal: AbortSignal,
  ): Promise<GateReplica | null> {
    const { replicas, path, probe_timeout_ms, on_progress } = this.#options;
    const unhealthy: GateReplica[] = [];
    let last: ProbeAnswer | null = null;
    const probing = replicas.map(async (replica) => {
      const seen = await probe({
        host: replica.host,
        port: replica.port,
        path,
        timeout_ms: probe_timeout_ms,
        signal,
      });
      const answer = phase === 'starting' && isHealthy(seen) ? await ownAnswer(replica, seen) : seen;
      this.#remember(replica, answer);
      if (answer.error === 'refused') await replica.refused?.().catch(() => undefined);
      if (!isHealthy(answer)) unhealthy.push(replica);
      if (last === null || !isHealthy(answer)) last = answer;
    });
    await Promise.all(probing);
    if (!signal.aborted) {
      const healthy = replicas.length - unhealthy.length;
      const elapsed_ms = Math.round(performance.now() - since);
      on_progress?.({ phase, elapsed_ms, healthy, total: replicas.length, last });
    }
    return unhealthy[0] ?? null;
  }

  /** A probe that the gate itself cut short is a silent app, if there was time to answer or nothing else to tell. */
  #remember(replica: GateReplica, answer: ProbeAnswer): void {
    if (answer.error !== 'aborted') this.#answers.set(replica.id, answer);
    else {
      const before = this.#answers.get(replica.id);
      const silent_ms = before?.error === 'timed out' ? before.duration_ms : MEANINGFUL_SILENCE_MS;
      if (answer.duration_ms >= silent_ms || before === undefined)
        this.#answers.set(replica.id, { ...answer, error: 'timed out' });
    }
  }

  async #fail(replica: GateReplica, phase: GateProgress['phase']): Promise<GateResult> {
    const { signal, path, startup_timeout_ms, grace_ms } = this.#options;
    signal.throwIfAborted();
    const answer = this.#answers.get(replica.id);
    const broken = answer?.error === 'reset' || answer?.error === 'refused';
    if (phase === 'grace' && broken) await pause(DYING_MS, this.#stop.signal);
    const gone = this.#exit?.replica === replica;
    const listening = gone ? [] : await within(LISTENING_TIMEOUT_MS, replica.listening(), []);
    // It may have died while it was asked; then that is the better answer.
    const exit = this.#exit?.replica === replica ? this.#exit.exit : null;
    signal.throwIfAborted();
    const failure = diagnose({
      host: replica.host,
      port: replica.app_port ?? replica.port,
      forwarded: replica.app_port !== undefined,
      path,
      phase,
      startup_timeout_ms,
      grace_ms,
      memory_limit_bytes: replica.memory_limit_bytes,
      last_probe: answer ?? null,
      exit,
      listening,
      log_tail: replica.log_tail(),
      held: this.#options.held?.port === replica.port ? null : (this.#options.held ?? null),
    });
    return { ok: false, failure };
  }
}

/** A port is free when it is chosen, and the app's when it is bound: in between another program may have taken it. */
async function ownAnswer(replica: GateReplica, answer: ProbeAnswer): Promise<ProbeAnswer> {
  const own = await within(LISTENING_TIMEOUT_MS, replica.answersItself?.() ?? Promise.resolve(null), null);
  return own === false ? { ...answer, status: null, error: STRANGER } : answer;
}

/** Sleeps, or returns early when `until` aborts. */
function pause(ms: number, until: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (until.aborted) return resolve();
    const wake = (): void => {
      clearTimeout(timer);
      until.removeEventListener('abort', wake);
      resolve();
    };
    const timer = setTimeout(wake, Math.max(0, ms));
    until.addEventListener('abort', wake);
  });
}

/** The promise's value, or `otherwise` when it rejects or takes too long. */
async function within<T>(timeout_ms: number, promise: Promise<T>, otherwise: T): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<T>((resolve) => {
    timer = setTimeout(resolve, timeout_ms, otherwise);
  });
  return Promise.race([promise.catch(() => otherwise), late]).finally(() => clearTimeout(timer));
}
