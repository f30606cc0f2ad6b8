/**
 * Stage 2: the snapshot is laid out afresh, the plan is decided from it, and the plan's commands run in an isolated
 * machine. The value is the folder they left, or the release of an earlier build from equal inputs.
 */
import { explainPlan } from '../build/explain.ts';
import { diskFiles, memoryFiles, type SourceFiles } from '../build/files.ts';
import { makePlan } from '../build/plan.ts';
import { type Failure, failure } from '../domain/failure.ts';
import type { Plan } from '../domain/plan.ts';
import type { Release } from '../domain/release.ts';
import type { RunSettings } from '../domain/settings.ts';
import type { SmallTree } from '../source/small-tree.ts';
import { setBuildState } from '../store/build.ts';
import { holdObjects } from '../store/object.ts';
import { objectsOfRelease, reusableRelease } from '../store/release.ts';
import { recordPlan, setVersionState, versionSecrets } from '../store/version.ts';
import { runCommands } from './build-commands.ts';
import { buildImage } from './build-image.ts';
import { noteHeldPort } from './held-port.ts';
import { noRuntime } from './no-runtime.ts';
import { reuseKey } from './reuse-key.ts';
import { failed, ok, type Result, type Run } from './run.ts';
import { layOut, smallTree } from './stored-source.ts';
import { withToolchains } from './toolchains.ts';
import { openEnv, type VersionEnv } from './version-env.ts';

export interface Built {
  plan: Plan;
  run_settings: RunSettings;
  reuse_key: string;
  /** A release made of the same was found damaged: what the store has of its parts is not to be trusted unread. */
  recheck: boolean;
  /**
   * The workspace after the build; or the image that a Dockerfile gave; or the source itself, in memory, where nothing
   * is built; or the stored release that makes a build unnecessary.
   */
  from:
    | { kind: 'workspace'; dir: string }
    | { kind: 'image'; archive: string; layout: 'oci' | 'docker' }
    | { kind: 'tree'; tree: SmallTree }
    | { kind: 'release'; release: Release };
}

/** Beyond the build's own time limit: unpacking the source and winding up. Milliseconds. */
const AROUND_BUILD_MS = 120_000;

export async function buildRelease(run: Run): Promise<Result<Built>> {
  await run.enter('plan', AROUND_BUILD_MS);
  const secrets = await versionSecrets(run.db, run.version.id);
  const env = openEnv(run.vault, run.version.id, 'build', secrets.build_env_encrypted);
  const small = await smallTree(run, secrets.source_key);
  if (!small.ok) return small;
  const tree = small.value;
  const laid_out = tree === null ? await layOut(run, secrets.source_key) : ok(null);
  if (!laid_out.ok) return laid_out;
  const dir = laid_out.value;
  const decided = await decide(run, tree === null ? diskFiles(dir!) : treeFiles(tree), env);
  if (!decided.ok) return decided;
  const { plan, run_settings } = decided.value;
  const { kind } = plan;
  const reuse_key = reuseKey({
    source_sha256: run.version.source_sha256,
    plan,
    build_env: env.vars,
    base: baseOf(run, plan),
  });
  if (kind === 'dynamic' && !makesImage(run, plan)) await noteHeldPort(run, run_settings.port);
  await run.record(async (trx) => {
    await recordPlan(trx, run.version.id, { plan, kind, run_settings });
    if (run.version.state === 'created') await setVersionState(trx, run.version.id, 'building');
    await setBuildState(trx, run.version.build_id, 'building');
    await run.event(trx, 'deployment.build_started', { mode: plan.mode });
  });
  run.version = { ...run.version, plan, kind, run_settings };
  const reusable = run.version.request.reuse ? await findReusable(run, reuse_key) : null;
  const built = { plan, run_settings, reuse_key, recheck: reusable === 'damaged' };
  if (reusable !== null && reusable !== 'damaged') {
    run.log.note(
      `reused release ${reusable.id} (${reusable.sha256.slice(0, 12)}): same source, plan, build environment and base; built nothing`,
    );
    return ok({ ...built, from: { kind: 'release', release: reusable } });
  }
  const commands = plan.install.length + plan.build.length;
  if (tree !== null && commands === 0 && kind === 'static')
    return ok({ ...built, from: { kind: 'tree', tree } });
  const in_folder = dir === null ? await layOut(run, secrets.source_key) : ok(dir);
  if (!in_folder.ok) return in_folder;
  const workspace = in_folder.value;
  if (plan.mode === 'dockerfile') {
    await run.enter('build', run.limits.build.time_ms + AROUND_BUILD_MS);
    const image = await buildImage(run, plan, workspace, env);
    return image.ok ? ok({ ...built, from: { kind: 'image', ...image.value } }) : image;
  }
  if (commands > 0) {
    await run.enter('build', run.limits.build.time_ms + AROUND_BUILD_MS);
    const problem = await runCommands(run, plan, workspace, env);
    if (problem) return failed(problem);
  }
  return ok({ ...built, from: { kind: 'workspace', dir: workspace } });
}

function treeFiles(tree: SmallTree): SourceFiles {
  const contents: Record<string, () => string> = Object.create(null);
  for (const [path, file] of tree)
    if (file !== null) contents[path] = () => file.content.toString('utf8').replace(/^\uFEFF/, '');
  return memoryFiles(contents);
}

/**
 * Decided once (I1): what an earlier attempt has recorded stays, whatever this machine, its settings and those of the
 * deployment would give today.
 */
async function decide(
  run: Run,
  files: SourceFiles,
  env: VersionEnv,
): Promise<Result<Pick<Built, 'plan' | 'run_settings'>>> {
  const { plan, run_settings } = run.version;
  if (plan !== null && run_settings !== null) {
    run.log.note('plan: as an earlier attempt recorded it');
    const missing = missingFor(run, plan);
    return missing === null ? ok({ plan, run_settings }) : failed(missing);
  }
  const found = planOf(run, files, env);
  if (!found.ok) return found;
  const planned = await withToolchains(run, run.builder, found.value);
  if (!planned.ok) return planned;
  return ok({ plan: planned.value, run_settings: runSettings(run, planned.value) });
}

function planOf(run: Run, files: SourceFiles, env: VersionEnv): Result<Plan> {
  const planned = makePlan(files, {
    overrides: run.version.request.overrides,
    env: env.vars,
    startup_timeout_ms: run.health.startup_timeout_ms,
  });
  if (!planned.ok) {
    const { message, next_step, looked_for, found } = planned.refusal;
    for (const line of [message, next_step]) run.log.note(line);
    const log_tail = [`looked for: ${looked_for.join(', ')}`, `found: ${found.join(', ')}`];
    return failed(failure({ stage: 'plan', code: 'NO_PLAN', message, next_step, log_tail }));
  }
  for (const line of explainPlan(planned.plan).split('\n')) run.log.note(line);
  const missing = missingFor(run, planned.plan);
  return missing === null ? ok(planned.plan) : failed(missing);
}

/** What this install lacks to carry the plan out. */
function missingFor(run: Run, plan: Plan): Failure | null {
  if (plan.mode === 'dockerfile' && run.image_builder === null) return buildkitMissing(run);
  if (plan.kind === 'dynamic' && makesImage(run, plan) && run.runtime === null)
    return noRuntime(run.images_missing);
  return null;
}

/** Builds that start from a base image give images too. */
function makesImage(run: Run, plan: Plan): boolean {
  return plan.mode === 'dockerfile' || run.builder.base_image != null;
}

/** A Dockerfile names its own base; what tags in it mean today is the registry's matter. */
function baseOf(run: Run, plan: Plan): string {
  return plan.mode === 'dockerfile' ? `dockerfile;${process.platform}-${process.arch}` : run.builder_base;
}

function buildkitMissing(run: Run) {
  return failure({
    stage: 'plan',
    code: 'BUILDKIT_MISSING',
    message: `The source has a Dockerfile, and building one needs BuildKit, which this install does not have. ${run.images_missing}`,
    next_step:
      'Install Docker on the machine of the engine (`kiln doctor` says what is missing); or remove the Dockerfile (or leave it out with .kilnignore) to let Kiln detect the build, or give a build command and a run command.',
  });
}

/** The request wins over the deployment's settings, those over the plan, the plan over the defaults. */
function runSettings(run: Run, plan: Plan): RunSettings {
  const { request } = run.version;
  const { settings } = run.deployment;
  return {
    port: plan.port,
    health_check_path: plan.health_check_path,
    startup_timeout_ms: request.startup_timeout_ms ?? settings.startup_timeout_ms ?? plan.startup_timeout_ms,
    grace_ms: request.grace_ms ?? settings.grace_ms ?? run.health.grace_ms,
    probe_timeout_ms: run.health.probe_timeout_ms,
    probe_interval_ms: run.health.probe_interval_ms,
    replicas: Math.max(1, run.deployment.desired_replicas),
    memory_bytes: settings.memory_bytes ?? run.health.instance_memory_bytes,
  };
}

/**
 * Held before it is looked at, so that retention keeps off from here on. One that is damaged is built anew, and what is
 * stored then takes its place.
 */
async function findReusable(run: Run, reuse_key: string): Promise<Release | 'damaged' | null> {
  const release = await reusableRelease(run.db, run.deployment.id, reuse_key);
  if (!release) return null;
  const missing = await run.record((trx) => holdObjects(trx, run.objects, objectsOfRelease(release)));
  const verdict = missing === null ? await run.verifier.verify(release) : 'gone';
  if (verdict !== 'corrupt') return verdict === 'whole' ? release : null;
  run.log.note(`release ${release.id} is damaged in the store: it is built anew`);
  return 'damaged';
}
