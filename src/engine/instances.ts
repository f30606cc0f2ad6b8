/**
 * The supervisor of this engine's instances. A row says why an instance exists (`role`) and how it is (`state`); this
 * is the only place that starts and ends the machine behind it.
 *
 *   launch ──► starting ──► healthy ◄──► unhealthy ──► (restart after back-off) starting
 *                                                 └──► error, when it keeps crashing
 *   retire ──► routes acknowledged ──► in-flight requests done, or `drain_ms` over ──► TERM, KILL ──► stopped
 */
import { rm } from 'node:fs/promises';
import type { Instance } from '../domain/instance.ts';
import type { Version } from '../domain/version.ts';
import type { GateReplica } from '../health/gate.ts';
import { isHealthy, probe } from '../health/probe.ts';
import type { MachineExit } from '../isolation/driver.ts';
import type { GatingInstances } from '../pipeline/run.ts';
import { deploymentById } from '../store/deployment.ts';
import {
  insertInstance,
  instanceById,
  setInstanceRole,
  setInstanceState,
  touchInstanceHealth,
  unstoppedInstances,
} from '../store/instance.ts';
import { ackedGeneration, currentGeneration } from '../store/route.ts';
import { versionById } from '../store/version.ts';
import type { EngineContext } from './context.ts';
import {
  adoptMachine,
  crashFailure,
  followToIpv6,
  instanceDir,
  type Running,
  startMachine,
  toReplica,
} from './instance-machine.ts';
import { adjustReplicas, warmToEnd } from './replicas.ts';

/** Probes that fail in a row before an instance leaves the routes, and before it is restarted. */
const UNHEALTHY_AFTER = 3;
const RESTART_AFTER = 15;
/** Healthy for this long: earlier crashes are forgotten. Milliseconds. */
const HEALTHY_SPELL_MS = 5 * 60_000;
const BACKOFF_MS = [500, 1000, 2000, 4000, 8000, 15_000, 30_000];
const ROUTES_ACK_MS = 10_000;

type StateChange = Parameters<typeof setInstanceState>[3];

export class Supervisor implements GatingInstances {
  readonly #ctx: EngineContext;
  readonly #running = new Map<string, Running>();
  /** Instances something is being done to; a second hand keeps off. */
  readonly #busy = new Set<string>();
  readonly #ports = new Set<number>();
  /** Everything under way in the background; the end of the engine waits for it. */
  readonly #work = new Set<Promise<unknown>>();
  readonly #stop = Promise.withResolvers<void>();
  #stopped = false;
  #pass: Promise<void> | null = null;
  #again = false;

  constructor(ctx: EngineContext) {
    this.#ctx = ctx;
  }

  /** New instances of a version, to be proved by an operation. */
  async start(version: Version, operation_id: string, log: (line: string) => void): Promise<GateReplica[]> {
    const deployment = await deploymentById(this.#ctx.db, version.deployment_id);
    const replicas = Math.max(1, deployment?.desired_replicas ?? 1);
    const started: GateReplica[] = [];
    for (let replica = 0; replica < replicas; replica++) {
      const row = await this.#ctx.db.transaction().execute((trx) =>
        insertInstance(trx, {
          id: this.#ctx.newId('ins'),
          tenant_id: version.tenant_id,
          deployment_id: version.deployment_id,
          version_id: version.id,
          release_id: version.release_id!,
          operation_id,
          engine_id: this.#ctx.id,
          replica,
          role: 'gating',
        }),
      );
      const run = await this.#exclusively(row.id, () => this.#launch(row, version));
      if (!run) continue;
      log(`instance ${row.id}: started on port ${run.port}`);
      started.push(toReplica(this.#ctx, run));
    }
    return started;
  }

  /** Ends the instances an operation was proving. */
  async retire(version_id: string, operation_id: string): Promise<void> {
    const rows = await unstoppedInstances(this.#ctx.db, { version_id });
    const mine = rows.filter((row) => row.operation_id === operation_id && row.role === 'gating');
    await Promise.all(mine.map((row) => this.#end(row, { drain: false })));
  }

  /** Takes over a live instance whose machine outlived its engine; its state and route stay as they are. */
  async adopt(row: Instance): Promise<boolean> {
    if (this.#stopped || !this.#ctx.runtime?.survives_engine) return false;
    const version = await versionById(this.#ctx.db, row.version_id);
    const run = await this.#exclusively(row.id, () => adoptMachine(this.#ctx, row, version, this.#ports));
    if (!run) return false;
    this.#watch(run);
    await this.#setState(row.id, row.state, { engine_id: this.#ctx.id, pid: run.machine.pid });
    return true;
  }

  /** Ids of the instances that run here. */
  here(): ReadonlySet<string> {
    return new Set(this.#running.keys());
  }

  /** Makes the number of live instances what the deployment wants. */
  async adjust(deployment_id: string): Promise<void> {
    if (this.#stopped) return;
    const work = adjustReplicas(this.#ctx, deployment_id).then(() => this.reconcile());
    this.#track(work.catch(() => {}));
    await work;
  }

  /**
   * Ends the machines of this engine. Rows of live ones stay live, to be launched again by whoever comes next; those
   * whose machines can outlive the engine go on, to be adopted.
   */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#stop.resolve();
    await this.#pass;
    const rows = await unstoppedInstances(this.#ctx.db);
    const live = new Set(rows.filter((row) => row.role === 'live').map((row) => row.id));
    const all = [...this.#running.values()].filter((run) => !(this.#outlives(run) && live.has(run.id)));
    const going_on = this.#running.size - all.length;
    if (going_on > 0)
      this.#ctx.say(
        'warn',
        `instances that go on without the engine, and are adopted when it starts: ${going_on}`,
      );
    for (const run of all) run.ending = true;
    await Promise.all(all.map((run) => run.machine.stop(this.#ctx.timings.stop_grace_ms)));
    while (this.#work.size > 0) await Promise.allSettled(this.#work);
    await this.#ctx.runtime?.release();
    await Promise.all([...this.#running.values()].map((run) => run.log.close()));
    const left = await unstoppedInstances(this.#ctx.db);
    for (const row of left.filter((of) => of.engine_id === this.#ctx.id && of.role !== 'live')) {
      await rm(instanceDir(this.#ctx, row.id), { recursive: true, force: true });
      await this.#setState(row.id, 'stopped', {});
    }
  }

  /** Probes, restarts and retires: brings what runs here to what the rows say. One pass at a time; a nudge adds one. */
  reconcile(): Promise<void> {
    if (this.#pass) {
      this.#again = true;
      return this.#pass;
    }
    this.#pass = this.#passes()
      .catch((error) => this.#oops('looking after the instances', error))
      .finally(() => {
        this.#pass = null;
      });
    return this.#pass;
  }

  async #passes(): Promise<void> {
    do {
      this.#again = false;
      if (!this.#stopped) await this.#onePass();
    } while (this.#again && !this.#stopped);
  }

  async #onePass(): Promise<void> {
    const { db, id, timings, bounds } = this.#ctx;
    const now_ms = Date.now();
    const rows = await unstoppedInstances(db);
    const over = warmToEnd(rows, { now_ms, warm_versions: bounds.warm_versions, warm_ms: timings.warm_ms });
    for (const row of rows) {
      if (row.engine_id !== id || this.#busy.has(row.id)) continue;
      const here = this.#running.has(row.id);
      const due = row.next_start_at === null || row.next_start_at.getTime() <= now_ms;
      if (over.has(row.id)) await db.transaction().execute((trx) => setInstanceRole(trx, row, 'retired'));
      if (row.role === 'retired' || over.has(row.id))
        this.#inBackground(row, this.#end(row, { drain: true }));
      else if (row.role === 'live' && !here && due && row.state !== 'error')
        this.#inBackground(row, this.#relaunch(row));
      else if (here && (row.role === 'live' || row.role === 'warm'))
        this.#inBackground(row, this.#steadyProbe(row));
    }
  }

  async #launch(row: Instance, version: Version): Promise<Running> {
    const run = await startMachine(this.#ctx, row, version, this.#ports);
    this.#watch(run);
    if (this.#stopped) {
      run.ending = true;
      await run.machine.stop(0);
      throw new Error('the engine is stopping');
    }
    await this.#setState(row.id, 'starting', {
      host: run.host,
      port: run.port,
      pid: run.machine.pid,
      started_at: new Date(),
      next_start_at: null,
    });
    return run;
  }

  #watch(run: Running): void {
    this.#running.set(run.id, run);
    const ended = run.machine.exited
      .then((exit) => this.#ended(run, exit))
      .catch((error) => this.#oops(`instance ${run.id} ended`, error));
    // One that goes on without this engine has no end to wait for.
    if (!this.#outlives(run)) this.#track(ended);
  }

  #outlives(run: Running): boolean {
    return run.app_port !== null && this.#ctx.runtime?.survives_engine === true;
  }

  /** Whatever ended it, its port and log are free again. A crash of a live one is followed by a restart. */
  async #ended(run: Running, exit: MachineExit): Promise<void> {
    if (this.#running.get(run.id) === run) this.#running.delete(run.id);
    this.#ports.delete(run.port);
    const problem = crashFailure(exit, run.log.tail(50));
    run.log.note(run.ending ? 'stopped' : problem.message);
    await run.log.close();
    if (run.ending || this.#stopped) return;
    await this.#ctx.db.transaction().execute(async (trx) => {
      const row = await instanceById(trx, run.id);
      if (!row || row.stopped_at !== null) return;
      if (row.role !== 'live') {
        // A gating one is judged by its gate; a warm one is of no use any more.
        await setInstanceState(trx, run.id, 'error', { failure: problem });
        if (row.role === 'warm') await setInstanceRole(trx, row, 'retired');
        return;
      }
      const crashes = row.restart_count + 1;
      const given_up = crashes > this.#ctx.bounds.crash_restarts;
      const wait_ms = BACKOFF_MS[Math.min(crashes - 1, BACKOFF_MS.length - 1)]!;
      await setInstanceState(trx, run.id, given_up ? 'error' : 'unhealthy', {
        failure: problem,
        restart_count: crashes,
        next_start_at: given_up ? null : new Date(Date.now() + wait_ms),
      });
      if (!given_up) setTimeout(() => void this.reconcile(), wait_ms + 5).unref();
    });
  }

  /** Ends an instance for good. Draining waits until no edge routes to it and its last request is done. */
  async #end(row: Instance, how: { drain: boolean }): Promise<void> {
    const { edge, timings } = this.#ctx;
    await this.#exclusively(row.id, async () => {
      const run = this.#running.get(row.id);
      if (run) {
        if (how.drain) {
          await this.#untilUnrouted();
          await Promise.race([edge.onIdle(row.id, timings.drain_ms), this.#stop.promise]);
        }
        edge.closeConnections(row.id);
        run.ending = true;
        await run.machine.stop(how.drain ? timings.stop_grace_ms : Math.min(2000, timings.stop_grace_ms));
      }
      await rm(instanceDir(this.#ctx, row.id), { recursive: true, force: true });
      await this.#setState(row.id, 'stopped', {});
    });
  }

  /** Every living edge serves the present routes: what is not in them gets no new request. */
  async #untilUnrouted(): Promise<void> {
    const { db, edge, timings } = this.#ctx;
    const generation = await currentGeneration(db);
    await Promise.race([edge.waitForGeneration(generation, ROUTES_ACK_MS), this.#stop.promise]);
    for (let waited_ms = 0; waited_ms < ROUTES_ACK_MS && !this.#stopped; waited_ms += 100) {
      if ((await ackedGeneration(db, timings.engine_silent_ms)) >= generation) return;
      await pause(100);
    }
  }

  async #relaunch(row: Instance): Promise<void> {
    await this.#exclusively(row.id, async () => {
      try {
        const version = await versionById(this.#ctx.db, row.version_id);
        await this.#becomeHealthy(await this.#launch(row, version), version);
      } catch (error) {
        await this.#setState(row.id, 'unhealthy', {
          restart_count: row.restart_count + 1,
          next_start_at: new Date(Date.now() + BACKOFF_MS.at(-1)!),
        });
        throw error;
      }
    });
  }

  /** A restarted instance joins the routes at its first 2xx; one that never answers is ended like a crash. */
  async #becomeHealthy(run: Running, version: Version): Promise<void> {
    const settings = version.run_settings!;
    const until = Date.now() + settings.startup_timeout_ms;
    while (this.#running.get(run.id) === run && !run.ending && !this.#stopped) {
      const answer = await this.#probe(run);
      if (isHealthy(answer)) {
        run.healthy_since = Date.now();
        await this.#setState(run.id, 'healthy', { host: run.host, last_health_check_at: new Date() });
        return;
      }
      if (answer.error === 'refused') await followToIpv6(run);
      if (Date.now() > until) {
        run.log.note('no 2xx within the start-up limit; restarting');
        await run.machine.stop(1000);
        return;
      }
      await pause(100);
    }
  }

  async #steadyProbe(row: Instance): Promise<void> {
    const run = this.#running.get(row.id);
    if (!run || run.ending) return;
    await this.#exclusively(row.id, async () => {
      const healthy = isHealthy(await this.#probe(run));
      if (this.#running.get(row.id) !== run || run.ending) return;
      run.failed_probes = healthy ? 0 : run.failed_probes + 1;
      run.healthy_since = healthy ? (run.healthy_since ?? Date.now()) : null;
      const now = new Date();
      const recovered = run.healthy_since !== null && now.getTime() - run.healthy_since > HEALTHY_SPELL_MS;
      if (healthy && row.state !== 'healthy')
        await this.#setState(row.id, 'healthy', { last_health_check_at: now, failure: null });
      else if (!healthy && row.state === 'healthy' && run.failed_probes >= UNHEALTHY_AFTER)
        await this.#setState(row.id, 'unhealthy', { last_health_check_at: now });
      else if (recovered && row.restart_count > 0)
        await this.#setState(row.id, 'healthy', { restart_count: 0 });
      else await touchInstanceHealth(this.#ctx.db, row.id, now);
      if (run.failed_probes >= RESTART_AFTER) {
        run.log.note('unhealthy for long; restarting');
        await run.machine.stop(this.#ctx.timings.stop_grace_ms);
      }
    });
  }

  /** One quick probe of each, for instances that were healthy a moment ago. False when any of them is not, or not here. */
  async stillHealthy(instances: readonly Instance[]): Promise<boolean> {
    const answers = await Promise.all(
      instances.map(async (row) => {
        const run = this.#running.get(row.id);
        return run !== undefined && !run.ending && isHealthy(await this.#probe(run));
      }),
    );
    return answers.every(Boolean);
  }

  #probe(run: Running) {
    const { health_check_path, probe_timeout_ms } = run.version.run_settings!;
    return probe({ host: run.host, port: run.port, path: health_check_path, timeout_ms: probe_timeout_ms });
  }

  #setState(id: string, to: Instance['state'], also: StateChange) {
    return this.#ctx.db.transaction().execute((trx) => setInstanceState(trx, id, to, also));
  }

  async #exclusively<T>(id: string, work: () => Promise<T>): Promise<T | undefined> {
    if (this.#busy.has(id)) return undefined;
    this.#busy.add(id);
    try {
      return await work();
    } finally {
      this.#busy.delete(id);
    }
  }

  #inBackground(row: Instance, work: Promise<void>): void {
    this.#track(work.catch((error) => this.#oops(`instance ${row.id}`, error)));
  }

  #track(work: Promise<unknown>): void {
    this.#work.add(work);
    void work.finally(() => this.#work.delete(work));
  }

  #oops(what: string, error: unknown): void {
    if (!this.#stopped) this.#ctx.say('error', `${what}: handling it failed`, { error: String(error) });
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
