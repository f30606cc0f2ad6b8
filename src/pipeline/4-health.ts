/** Stage 4, dynamic releases only: new instances must answer 2xx for the whole grace period, all of them as one. */
import { type Failure, failure } from '../domain/failure.ts';
import type { Release } from '../domain/release.ts';
import type { RunSettings } from '../domain/settings.ts';
import { type GateReplica, gate } from '../health/gate.ts';
import { tellWaiting } from '../health/waiting.ts';
import { lockUnstopped, retireGating, setInstanceState } from '../store/instance.ts';
import { recordHealthPassed } from '../store/version.ts';
import { heldPort } from './held-port.ts';
import { noRuntime } from './no-runtime.ts';
import { failed, ok, type Result, type Run } from './run.ts';
import { Unproved } from './unproved.ts';

export interface Healthy {
  release: Release;
  /** Instances that passed the gate; a static release has none. */
  proved: number;
}

/** Beyond start-up limit and grace: unpacking the release and starting. Milliseconds. */
const AROUND_GATE_MS = 5 * 60_000;

export async function proveHealthy(run: Run, release: Release): Promise<Result<Healthy>> {
  if (release.kind === 'static') return ok({ release, proved: 0 });
  const settings = runSettingsOf(run);
  await run.enter('health', AROUND_GATE_MS + settings.startup_timeout_ms + settings.grace_ms);
  if (release.kind === 'rootfs' && release.manifest.base !== run.base)
    return failed(otherBase(release, run.base));
  if (release.kind === 'oci' && run.runtime === null) return failed(noRuntime(run.images_missing));
  // What an earlier attempt of this operation started proves nothing about this one.
  await retire(run);
  run.log.note('health: unpacking the release and starting it');
  const replicas = await run.instances.start(run);
  run.log.note(
    `health: GET ${settings.health_check_path} must answer 2xx within ${seconds(settings.startup_timeout_ms)}, then for ${seconds(settings.grace_ms)}`,
  );
  const held = release.kind === 'rootfs' ? await heldPort(run, settings.port, replicas) : null;
  const tell = tellWaiting(settings.health_check_path, (line) => run.log.note(line));
  let in_grace = false;
  const proved = await gate({
    replicas,
    path: settings.health_check_path,
    startup_timeout_ms: settings.startup_timeout_ms,
    grace_ms: settings.grace_ms,
    probe_interval_ms: settings.probe_interval_ms,
    probe_timeout_ms: settings.probe_timeout_ms,
    signal: run.signal,
    held,
    on_progress: (p) => {
      tell(p);
      if (p.phase !== 'grace' || in_grace) return;
      in_grace = true;
      run.log.note(`health: first 2xx after ${seconds(p.elapsed_ms)}`);
    },
  });
  const problem = proved.ok ? await recordProved(run, replicas) : proved.failure;
  if (problem !== null) {
    await retire(run);
    run.log.note(`health: ${problem.message} ${problem.next_step}`);
    return failed(problem);
  }
  run.log.note('health: passed');
  return ok({ release, proved: replicas.length });
}

/** Under the lease: a worker that has lost it ends nothing that its successor may have started (I5). */
async function retire(run: Run): Promise<void> {
  await run.instances.end(await run.record((trx) => retireGating(trx, run.operation.id)));
}

/** One that ended since its last good answer has said so in its row: it stays what it is, and the gate has failed. */
async function recordProved(run: Run, replicas: readonly GateReplica[]): Promise<Failure | null> {
  try {
    await run.record(async (trx) => {
      await recordHealthPassed(trx, run.version.id);
      const rows = await lockUnstopped(trx, { operation_id: run.operation.id });
      const starting = new Set(rows.filter((row) => row.state === 'starting').map((row) => row.id));
      const proved = replicas.filter(({ id }) => starting.has(id));
      if (proved.length < replicas.length)
        throw new Unproved({ stage: 'health', wanted: replicas.length, proved: proved.length, rows });
      for (const { id, host } of replicas)
        await setInstanceState(trx, id, 'healthy', { host, last_health_check_at: new Date() });
    });
    return null;
  } catch (error) {
    if (error instanceof Unproved) return error.failure;
    throw error;
  }
}

function runSettingsOf(run: Run): RunSettings {
  if (run.version.run_settings === null) throw new Error(`version ${run.version.id} has no run settings`);
  return run.version.run_settings;
}

function seconds(ms: number): string {
  return `${Math.round(ms / 100) / 10} s`;
}

function otherBase(release: Release, base: string) {
  return failure({
    stage: 'health',
    code: 'ARTIFACT_GONE',
    fault: 'caller',
    message: `This release was built on "${release.manifest.base}", and this machine offers "${base}".`,
    next_step: 'Publish again (or `kiln retry`), so that it is built on what is here now.',
  });
}
