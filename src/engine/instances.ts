/**
 * The supervisor of this engine's instances. A row says why an instance exists (`role`) and how it is (`state`); this
 * is the only place that starts and ends the machine behind it.
 *
 *   launch ──► starting ──► healthy ◄──► unhealthy ──► (restart after back-off) starting
 *                                                 └──► error, when it keeps crashing
 *   retire ──► routes acknowledged ──► in-flight requests done, or `drain_ms` over ──► TERM, KILL ──► stopped
 */
import { rm } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import type { Instance } from '../domain/instance.ts';
import type { Version } from '../domain/version.ts';
import type { GateReplica } from '../health/gate.ts';
import { isHealthy, probe } from '../health/probe.ts';
import type { MachineExit } from '../isolation/driver.ts';
import type { GatingInstances, Run } from '../pipeline/run.ts';
import { deploymentById } from '../store/deployment.ts';
import {
  insertInstance,
  instanceById,
  type StateChange,
  setInstanceState,
  touchInstanceHealth,
  unstoppedInstances,
} from '../store/instance.ts';
import { transact } from '../store/transact.ts';
import { versionById } from '../store/version.ts';
import type { EngineContext } from './context.ts';
import { LONGEST_BACKOFF_MS, recordCrash, untilUnrouted } from './instance-end.ts';
import {
  adoptMachine,
  crashFailure,
  followToIpv6,
  instanceDir,
  type Running,
  startMachine,
  toReplica,
} from './instance-machine.ts';
import { adjustReplicas, retireWarm, warmToEnd } from './replicas.ts';

/** Probes that fail in a row before an instance leaves the routes, and before it is restarted. */
const UNHEALTHY_AFTER = 3;
const RESTART_AFTER = 15;
/** Healthy for this long: earlier crashes are forgotten. Milliseconds. */
const HEALTHY_SPELL_MS = 5 * 60_000;

export class Supervisor implements GatingInstances {
  readonly #ctx: EngineContext;
  readonly #running = new Map<string, Running>();
  /** Instances something is being done to; a second hand keeps off. */
  readonly #busy = new Map<string, Promise<unknown>>();
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
  async start(of: Pick<Run, 'version' | 'operation' | 'record' | 'log'>): Promise<GateReplica[]> {
    const { version, operation } = of;
    const deployment = await deploymentById(this.#ctx.db, version.deployment_id);
    const replicas = Math.max(1, deployment?.desired_replicas ?? 1);
    const started: GateReplica[] = [];
    const { tenant_id, deployment_id, id: version_id } = version;
    for (let replica = 0; replica < replicas; replica++) {
      const row = await of.record((trx) =>
        insertInstance(trx, {
          id: this.#ctx.newId('ins'),
          ...{ tenant_id, deployment_id, version_id },
          ...{
            release_id: version.release_id!,
            operation_id: operation.id,
            engine_id: this.#ctx.id,
            replica,
          },
          role: 'gating',
        }),
      );
      const run = await this.#exclusively(row.id, () => this.#launch(row, version));
      if (!run) continue;
      of.log.note(`instance ${row.id}: started on port ${run.port}`);
      started.push(toReplica(this.#ctx, run));
    }
    return started;
  }

  /** Those of other engines are ended by these, when they see the role. */
  async end(retired: readonly Instance[]): Promise<void> {
    const end = async (row: Instance) => {
      await this.#busy.get(row.id);
      await this.#end(row, { drain: false });
    };
    await Promise.all(retired.filter((row) => row.engine_id === this.#ctx.id).map(end));
  }

  /** Takes over a live instance whose machine outlived its engine; its state and route stay as they are. */
  async adopt(row: Instance): Promise<boolean> {
    const { db, id: engine_id, runtime } = this.#ctx;
    if (this.#stopped || !runtime?.survives_engine) return false;
    const version = await versionById(db, row.version_id);
    const only = { engine_id: row.engine_id };
    const taken = await this.#exclusively(row.id, async () => {
      const run = await adoptMachine(this.#ctx, row, version, this.#ports);
      if (!run) return undefined;
      this.#watch(run);
      const also = { engine_id, pid: run.machine.pid };
      return transact(db, (trx) => setInstanceState(trx, row.id, row.state, also, only));
    });
    return taken !== undefined;
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
    // Looked at before the rows: whatever runs by now had its row before.
    const runs = [...this.#running.values()];
    const rows = await unstoppedInstances(db);
    const mine = new Set(rows.filter((row) => row.engine_id === id).map((row) => row.id));
    for (const run of runs)
      if (!mine.has(run.id) && !run.ending && !this.#busy.has(run.id))
        this.#inBackground(run.id, this.#endStray(run));
    const over = warmToEnd(rows, { now_ms, warm_versions: bounds.warm_versions, warm_ms: timings.warm_ms });
    for (const row of rows) {
      if (row.engine_id !== id || this.#busy.has(row.id)) continue;
      const here = this.#running.has(row.id);
      const due = row.next_start_at === null || row.next_start_at.getTime() <= now_ms;
      if (row.role === 'retired') this.#inBackground(row.id, this.#end(row, { drain: true }));
      else if (over.has(row.id))
        this.#inBackground(
          row.id,
          retireWarm(this.#ctx, row.id).then(() => void this.reconcile()),
        );
      else if (row.role === 'live' && !here && due && row.state !== 'error')
        this.#inBackground(row.id, this.#relaunch(row));
      else if (here && (row.role === 'live' || row.role === 'warm'))
        this.#inBackground(row.id, this.#steadyProbe(row));
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
    const { host, port, machine } = run;
    const also = { host, port, pid: machine.pid, started_at: new Date(), next_start_at: null };
    const started = await this.#setState(row.id, 'starting', also);
    if (started !== undefined) return run;
    await this.#endMachine(run, { drain: false });
    throw new Error('it was taken over or ended while it started');
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
    const restart_in_ms = await recordCrash(this.#ctx, run.id, problem);
    if (restart_in_ms !== null) setTimeout(() => void this.reconcile(), restart_in_ms + 5).unref();
  }

  /** Ends an instance for good. Draining waits until no edge routes to it and its last request is done. */
  async #end(row: Instance, how: { drain: boolean }): Promise<void> {
    await this.#exclusively(row.id, async () => {
      const run = this.#running.get(row.id);
      if (run) await this.#endMachine(run, how);
      await rm(instanceDir(this.#ctx, row.id), { recursive: true, force: true });
      await this.#setState(row.id, 'stopped', {});
    });
  }

  async #endMachine(run: Running, how: { drain: boolean }): Promise<void> {
    const { edge, timings } = this.#ctx;
    if (how.drain) {
      await untilUnrouted(this.#ctx, this.#stop.promise);
      await Promise.race([edge.onIdle(run.id, timings.drain_ms), this.#stop.promise]);
    }
    edge.closeConnections(run.id);
    run.ending = true;
    await run.machine.stop(how.drain ? timings.stop_grace_ms : Math.min(2000, timings.stop_grace_ms));
  }

  /**
   * A machine without a row of ours: this engine was silent for so long that another took it for dead, and took over
   * what it had. The row, if there is one, is that engine's.
   */
  async #endStray(run: Running): Promise<void> {
    await this.#exclusively(run.id, async () => {
      const row = await instanceById(this.#ctx.db, run.id);
      if (row?.stopped_at === null && row.engine_id === this.#ctx.id) return;
      this.#ctx.say(
        'warn',
        `instance ${run.id} was taken over or ended by another engine; its machine here ends`,
      );
      await this.#endMachine(run, { drain: true });
      await rm(instanceDir(this.#ctx, run.id), { recursive: true, force: true });
    });
  }

  async #relaunch(row: Instance): Promise<void> {
    await this.#exclusively(row.id, async () => {
      try {
        const version = await versionById(this.#ctx.db, row.version_id);
        await this.#becomeHealthy(await this.#launch(row, version), version);
      } catch (error) {
        await this.#setState(row.id, 'unhealthy', {
          restart_count: row.restart_count + 1,
          next_start_at: new Date(Date.now() + LONGEST_BACKOFF_MS),
        });
        throw error;
      }
    });
  }

  /** A restarted instance joins the routes at its first 2xx; one that never answers is ended like a crash. */
  async #becomeHealthy(run: Running, version: Version): Promise<void> {
    const until = Date.now() + version.run_settings!.startup_timeout_ms;
    while (this.#running.get(run.id) === run && !run.ending && !this.#stopped) {
      const answer = await this.#probe(run);
      if (isHealthy(answer)) {
        run.healthy_since = Date.now();
        const also = { host: run.host, last_health_check_at: new Date() };
        await this.#setState(run.id, 'healthy', also, ['starting']);
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
        await this.#setState(row.id, 'healthy', { last_health_check_at: now, failure: null }, [row.state]);
      else if (!healthy && row.state === 'healthy' && run.failed_probes >= UNHEALTHY_AFTER)
        await this.#setState(row.id, 'unhealthy', { last_health_check_at: now }, ['healthy']);
      else if (recovered && row.restart_count > 0)
        await this.#setState(row.id, 'healthy', { restart_count: 0 }, ['healthy']);
      else await touchInstanceHealth(this.#ctx.db, { id: row.id, engine_id: this.#ctx.id }, now);
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

  /** Of a row that is this engine's; undefined when it is not any more, or is in none of the states `from`. */
  #setState(id: string, to: Instance['state'], also: StateChange, from?: Instance['state'][]) {
    const only = { engine_id: this.#ctx.id, from };
    return transact(this.#ctx.db, (trx) => setInstanceState(trx, id, to, also, only));
  }

  async #exclusively<T>(id: string, work: () => Promise<T>): Promise<T | undefined> {
    if (this.#busy.has(id)) return undefined;
    const working = work();
    this.#busy.set(
      id,
      working.catch(() => {}),
    );
    try {
      return await working;
    } finally {
      this.#busy.delete(id);
    }
  }

  #inBackground(id: string, work: Promise<void>): void {
    this.#track(work.catch((error) => this.#oops(`instance ${id}`, error)));
  }

  #track(work: Promise<unknown>): void {
    this.#work.add(work);
    void work.finally(() => this.#work.delete(work));
  }

  #oops(what: string, error: unknown): void {
    if (!this.#stopped) this.#ctx.say('error', `${what}: handling it failed`, { error: String(error) });
  }
}
