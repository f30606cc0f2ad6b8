/** Stage 4, dynamic releases only: new instances must answer 2xx for the whole grace period, all of them as one. */
import { failure } from '../domain/failure.ts';
import type { Release } from '../domain/release.ts';
import type { RunSettings } from '../domain/settings.ts';
import { gate } from '../health/gate.ts';
import { setInstanceState } from '../store/instance.ts';
import { recordHealthPassed } from '../store/version.ts';
import { heldPort } from './held-port.ts';
import { noRuntime } from './no-runtime.ts';
import { failed, ok, type Result, type Run } from './run.ts';

export interface Healthy {
  release: Release;
  /** False for a static release: it has no instances. */
  has_instances: boolean;
}

/** Beyond start-up limit and grace: unpacking the release and starting. Milliseconds. */
const AROUND_GATE_MS = 5 * 60_000;

export async function proveHealthy(run: Run, release: Release): Promise<Result<Healthy>> {
  if (release.kind === 'static') return ok({ release, has_instances: false });
  const settings = runSettingsOf(run);
  await run.enter('health', AROUND_GATE_MS + settings.startup_timeout_ms + settings.grace_ms);
  if (release.kind === 'rootfs' && release.manifest.base !== run.base)
    return failed(otherBase(release, run.base));
  if (release.kind === 'oci' && run.runtime === null) return failed(noRuntime(run.images_missing));
  // What an earlier attempt of this operation started proves nothing about this one.
  await run.instances.retire(run.version.id, run.operation.id);
  const replicas = await run.instances.start(run.version, run.operation.id, (line) => run.log.note(line));
  run.log.note(
    `health: GET ${settings.health_check_path} must answer 2xx within ${seconds(settings.startup_timeout_ms)}, then for ${seconds(settings.grace_ms)}`,
  );
  const held = release.kind === 'rootfs' ? await heldPort(run, settings.port, replicas) : null;
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
      if (p.phase !== 'grace' || in_grace) return;
      in_grace = true;
      run.log.note(`health: first 2xx after ${seconds(p.elapsed_ms)}`);
    },
  });
  if (!proved.ok) {
    await run.instances.retire(run.version.id, run.operation.id);
    run.log.note(`health: ${proved.failure.message} ${proved.failure.next_step}`);
    return failed(proved.failure);
  }
  await run.record(async (trx) => {
    await recordHealthPassed(trx, run.version.id);
    for (const { id, host } of replicas)
      await setInstanceState(trx, id, 'healthy', { host, last_health_check_at: new Date() });
  });
  run.log.note('health: passed');
  return ok({ release, has_instances: true });
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
