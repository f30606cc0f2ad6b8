/** Stage 3: what the build left becomes an immutable artifact, named by its digest, stored once. */
import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { KilnError } from '../domain/errors.ts';
import type { Plan } from '../domain/plan.ts';
import type { Release } from '../domain/release.ts';
import { type Artifact, packRootfs, packSmallStatic, packStatic } from '../release/artifact.ts';
import { resolveAtRest } from '../source/paths.ts';
import type { SmallTree } from '../source/small-tree.ts';
import { setBuildState } from '../store/build.ts';
import { holdObjects } from '../store/object.ts';
import { insertRelease, objectsOfRelease } from '../store/release.ts';
import { recordRelease } from '../store/version.ts';
import type { Built } from './2-build.ts';
import { nothingPacked, outputFailure, outputMissing } from './output-failure.ts';
import { packApp, packBuiltImage } from './pack-image.ts';
import { warnOfRelease } from './release-warnings.ts';
import { failed, ok, type Result, type Run } from './run.ts';

const PACKING_MS = 10 * 60_000;

export async function packRelease(run: Run, built: Built): Promise<Result<Release>> {
  if (built.from.kind === 'release') return ok(await adopt(run, built, built.from.release));
  await run.enter('release', PACKING_MS);
  for (let tries = 0; tries < 3; tries++) {
    const packed = await pack(run, built, built.from);
    if (!packed.ok) return packed;
    const artifact = packed.value;
    if (artifact.kind === 'static' && artifact.manifest.files === 0) return failed(nothingPacked(built.plan));
    const release = await store(run, built, artifact);
    if (release === null) continue;
    run.log.note(
      `release ${release.id}: ${artifact.kind}, ${contents(artifact)}, ${artifact.manifest.total_bytes} bytes, sha256 ${artifact.sha256}`,
    );
    run.version = { ...run.version, release_id: release.id };
    await warnOfRelease(run, artifact, built.plan);
    return ok(release);
  }
  throw new KilnError('STORAGE_FAILED', 'The stored artifact vanished again and again; try once more.');
}

/** Null when an equal, old object, found there while packing, was removed by retention before it was held. */
async function store(run: Run, built: Built, artifact: Artifact): Promise<Release | null> {
  return run.record(async (trx) => {
    if ((await holdObjects(trx, run.objects, artifact.objects)) !== null) return null;
    const row = await insertRelease(trx, releaseRow(run, built, artifact));
    await recordRelease(trx, run.version.id, row.id, false);
    await setBuildState(trx, run.version.build_id, 'succeeded', { log_bytes: run.log.bytes });
    await run.event(trx, 'deployment.build_succeeded', { release_id: row.id, sha256: row.sha256 });
    return row;
  });
}

function contents({ manifest }: Artifact): string {
  return manifest.files === undefined ? `${manifest.layers} layers` : `${manifest.files} files`;
}

/** The release of an earlier build from equal inputs becomes this version's release too. */
async function adopt(run: Run, built: Built, release: Release): Promise<Release> {
  await run.record(async (trx) => {
    const missing = await holdObjects(trx, run.objects, objectsOfRelease(release));
    if (missing !== null)
      throw new KilnError('ARTIFACT_GONE', `${missing} of release ${release.id} is not stored any more.`);
    await recordRelease(trx, run.version.id, release.id, true);
    await setBuildState(trx, run.version.build_id, 'succeeded', { log_bytes: run.log.bytes });
    await run.event(trx, 'deployment.build_succeeded', { release_id: release.id, reused: true });
  });
  run.version = { ...run.version, release_id: release.id, reused_release: true };
  await warnOfRelease(run, release, built.plan);
  return release;
}

/** Makes the artifact and stores its bytes; no row is written. */
export async function pack(
  run: Run,
  built: Built,
  from: Exclude<Built['from'], { kind: 'release' }>,
): Promise<Result<Artifact>> {
  const { plan } = built;
  const packing = {
    objects: run.objects,
    tmp_dir: run.tmp_dir,
    name: run.newId('rel'),
    max_bytes: run.limits.artifact_bytes,
    signal: run.signal,
  };
  try {
    if (from.kind === 'tree') {
      const artifact = await packSmallStatic({
        ...packing,
        tree: from.tree,
        root: path.posix.normalize(plan.output_path),
      });
      return artifact === null ? failed(outputMissing(plan, topFolders(from.tree))) : ok(artifact);
    }
    if (from.kind === 'image') return await packBuiltImage({ packing, archive: from.archive });
    const { dir } = from;
    const output = await resolveAtRest(dir, plan.output_path);
    const info = await stat(output).catch(() => null);
    if (info === null || !info.isDirectory()) return failed(outputMissing(plan, await foldersOf(dir)));
    if (plan.kind === 'static') return ok(await packStatic({ ...packing, root: output }));
    const { root, cwd } = layout(plan, dir, output);
    const base = run.builder.base_image;
    if (base) return ok(await packApp(run, { packing, base, plan, root, cwd, recheck: built.recheck }));
    const release = {
      command: plan.start ?? '',
      cwd,
      port: plan.port,
      env: plan.run_env,
      base: run.builder_base,
    };
    return ok(await packRootfs({ ...packing, root, release }));
  } catch (error) {
    const problem = outputFailure(plan, from.kind === 'image', error);
    if (problem === null) throw error;
    return failed(problem);
  }
}

/**
 * What of the workspace goes in, and where the command starts. A named output folder is packed alone and the command
 * starts in it, unless the command itself names the folder (`node dist/server.js`): then it means the whole.
 */
function layout(plan: Plan, dir: string, output: string): { root: string; cwd: string } {
  const named = path.posix.normalize(plan.output_path);
  if (named === '.' || named === path.posix.normalize(plan.root)) return { root: dir, cwd: plan.root };
  if ((plan.start ?? '').includes(path.posix.relative(plan.root, named)))
    return { root: dir, cwd: plan.root };
  return { root: output, cwd: '.' };
}

function releaseRow(
  run: Run,
  built: Built,
  artifact: Artifact,
): Omit<Release, 'created_at' | 'collected_at'> {
  const { tenant_id, workspace_id, project_id } = run.version;
  const { external_workspace_id, external_user_id, external_project_id } = run.version;
  return {
    id: run.newId('rel'),
    tenant_id,
    workspace_id,
    project_id,
    external_workspace_id,
    external_user_id,
    external_project_id,
    deployment_id: run.deployment.id,
    version_id: run.version.id,
    kind: artifact.kind,
    sha256: artifact.sha256,
    object_key: artifact.object_key,
    size_bytes: artifact.stored_bytes,
    manifest: artifact.manifest,
    start_command: built.plan.start,
    port: built.plan.port,
    reuse_key: built.reuse_key,
    ready_at: new Date(),
  };
}

function topFolders(tree: SmallTree): string[] {
  return [...tree].filter(([path, file]) => file === null && !path.includes('/')).map(([path]) => path);
}

async function foldersOf(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { withFileTypes: true }).catch(() => []);
  return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
}
