/** Stage 3: what the build left becomes an immutable artifact, named by its digest, stored once. */
import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { failure } from '../domain/failure.ts';
import type { Plan } from '../domain/plan.ts';
import type { Release } from '../domain/release.ts';
import { type Artifact, packRootfs, packSmallStatic, packStatic } from '../release/artifact.ts';
import { ArtifactTooLarge } from '../source/pack.ts';
import { resolveAtRest } from '../source/paths.ts';
import type { SmallTree } from '../source/small-tree.ts';
import { setBuildState } from '../store/build.ts';
import { recordObject } from '../store/object.ts';
import { insertRelease } from '../store/release.ts';
import { recordRelease } from '../store/version.ts';
import type { Built } from './2-build.ts';
import { packApp, packBuiltImage } from './pack-image.ts';
import { failed, ok, type Result, type Run } from './run.ts';

const PACKING_MS = 10 * 60_000;

export async function packRelease(run: Run, built: Built): Promise<Result<Release>> {
  if (built.from.kind === 'release') return ok(await adopt(run, built.from.release));
  await run.enter('release', PACKING_MS);
  const { plan } = built;
  const packed = await pack(run, built, built.from);
  if (!packed.ok) return packed;
  const artifact = packed.value;
  for (const link of artifact.skipped)
    run.log.note(`left out: ${link} is a link that leaves the output folder`);
  if (artifact.kind === 'static' && artifact.manifest.files === 0) return failed(nothingPacked(plan));
  const release = await run.record(async (trx) => {
    // The books first: an object that a row refers to is never unknown to retention.
    // In one order: layers are shared, and two that write the same rows must not wait for each other.
    for (const object of artifact.objects.toSorted((a, b) => (a.key < b.key ? -1 : 1)))
      await recordObject(trx, object);
    const row = await insertRelease(trx, releaseRow(run, built, artifact));
    await recordRelease(trx, run.version.id, row.id, false);
    await setBuildState(trx, run.version.build_id, 'succeeded', { log_bytes: run.log.bytes });
    await run.event(trx, 'deployment.build_succeeded', { release_id: row.id, sha256: row.sha256 });
    return row;
  });
  run.log.note(
    `release ${release.id}: ${artifact.kind}, ${contents(artifact)}, ${artifact.manifest.total_bytes} bytes, sha256 ${artifact.sha256}`,
  );
  run.version = { ...run.version, release_id: release.id };
  return ok(release);
}

function contents({ manifest }: Artifact): string {
  return manifest.files === undefined ? `${manifest.layers} layers` : `${manifest.files} files`;
}

/** The release of an earlier build from equal inputs becomes this version's release too. */
async function adopt(run: Run, release: Release): Promise<Release> {
  await run.record(async (trx) => {
    await recordObject(trx, { key: release.object_key, kind: 'release', size_bytes: release.size_bytes });
    await recordRelease(trx, run.version.id, release.id, true);
    await setBuildState(trx, run.version.build_id, 'succeeded', { log_bytes: run.log.bytes });
    await run.event(trx, 'deployment.build_succeeded', { release_id: release.id, reused: true });
  });
  run.version = { ...run.version, release_id: release.id, reused_release: true };
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
    if (from.kind === 'image') return await packBuiltImage(run, { packing, archive: from.archive, plan });
    const { dir } = from;
    const output = await resolveAtRest(dir, plan.output_path);
    const info = await stat(output).catch(() => null);
    if (info === null || !info.isDirectory()) return failed(outputMissing(plan, await foldersOf(dir)));
    if (plan.kind === 'static') return ok(await packStatic({ ...packing, root: output }));
    const { root, cwd } = layout(plan, dir, output);
    const base = run.builder.base_image;
    if (base) return ok(await packApp(run, { packing, base, plan, root, cwd }));
    const release = {
      command: plan.start ?? '',
      cwd,
      port: plan.port,
      env: plan.run_env,
      base: run.builder_base,
    };
    return ok(await packRootfs({ ...packing, root, release }));
  } catch (error) {
    if (error instanceof ArtifactTooLarge) return failed(tooLarge(plan, error));
    throw error;
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

function tooLarge(plan: Plan, error: ArtifactTooLarge) {
  return failure({
    stage: 'release',
    code: 'ARTIFACT_TOO_LARGE',
    message: `The output (${plan.output_path}) is larger than the limit of ${Math.round(error.max_bytes / 1024 / 1024)} MiB.`,
    next_step:
      'Leave out what production does not need (source maps, caches, development dependencies), or raise the limit (--artifact-limit).',
  });
}

function nothingPacked(plan: Plan) {
  return failure({
    stage: 'release',
    code: 'OUTPUT_MISSING',
    message: `The output folder ${plan.output_path} holds no file that may be served.`,
    next_step: 'Check that the build writes its files there, or name the right folder with --output-path.',
  });
}

function topFolders(tree: SmallTree): string[] {
  return [...tree].filter(([path, file]) => file === null && !path.includes('/')).map(([path]) => path);
}

async function foldersOf(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { withFileTypes: true }).catch(() => []);
  return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
}

function outputMissing(plan: Plan, folders: string[]) {
  return failure({
    stage: 'release',
    code: 'OUTPUT_MISSING',
    message: `After the build there is no folder ${plan.output_path}.`,
    next_step: `Name the folder that the build writes with --output-path. The folders there are: ${folders.slice(0, 20).join(', ') || 'none'}.`,
  });
}
