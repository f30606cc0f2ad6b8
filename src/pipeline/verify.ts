/**
 * The same snapshot, built once more in a fresh machine and packed beside the store: is the release what its source says?
 * (I11, asked of a real build.) Nothing is recorded but the answer.
 */
import { mkdir, rm } from 'node:fs/promises';
import path from 'node:path';
import type { Release } from '../domain/release.ts';
import { compareArtifacts } from '../release/compare.ts';
import { fileObjectStore } from '../store/objects/files.ts';
import type { ObjectStore } from '../store/objects/port.ts';
import { buildRelease } from './2-build.ts';
import { pack } from './3-release.ts';
import { ok, type Result, type Run } from './run.ts';
import { storedRelease } from './stored-release.ts';

const COMPARING_MS = 10 * 60_000;

export async function verify(run: Run): Promise<Result<null>> {
  const release = await storedRelease(run);
  if (release === null) throw new Error(`version ${run.version.id} has no release`);
  const dir = run.workDir(run.operation.id);
  await rm(dir, { recursive: true, force: true });
  // A small site is packed from memory: nothing else makes the folder for its tar.
  await mkdir(dir, { recursive: true });
  const beside = fileObjectStore(path.join(dir, 'objects'));
  const rebuild = shadow(run, dir, layered(beside, run.objects));
  const built = await buildRelease(rebuild);
  if (!built.ok) return built;
  if (built.value.from.kind === 'release') throw new Error('a verify must not reuse a release');
  await rebuild.enter('release', COMPARING_MS);
  const packed = await pack(rebuild, built.value, built.value.from);
  if (!packed.ok) return packed;
  const { kind, sha256, object_key, manifest } = packed.value;
  const rebuilt: Pick<Release, 'kind' | 'sha256' | 'object_key' | 'manifest'> = {
    kind,
    sha256,
    object_key,
    manifest,
  };
  const result = await compareArtifacts(
    { objects: run.objects, ...release },
    { objects: rebuild.objects, ...rebuilt },
  );
  run.log.note(
    result.reproducible
      ? `the rebuilt release is the same: sha256 ${release.sha256}`
      : `the rebuilt release differs in ${result.differences_total} paths: sha256 ${sha256}, stored ${release.sha256}`,
  );
  await run.record((trx) =>
    run.finish(trx, { state: 'succeeded', promoted: false, superseded: false, failure: null, result }),
  );
  return ok(null);
}

/** A run that writes nothing about its version: no row, no event, no object in the store. */
function shadow(run: Run, dir: string, objects: ObjectStore): Run {
  return {
    ...run,
    objects,
    // Planned anew as well: a plan that comes out differently today is a finding.
    version: {
      ...run.version,
      ...{ plan: null, run_settings: null },
      request: { ...run.version.request, reuse: false },
    },
    workDir: () => path.join(dir, 'build'),
    tmp_dir: dir,
    record: async () => undefined as never,
    event: async () => undefined,
  };
}

/** Reads from both, writes into the first only. */
function layered(upper: ObjectStore, lower: ObjectStore): ObjectStore {
  return {
    put: (key, body) => upper.put(key, body),
    putFile: (key, file) => upper.putFile(key, file),
    head: async (key) => (await upper.head(key)) ?? (await lower.head(key)),
    get: async (key, range) => ((await upper.head(key)) ? upper.get(key, range) : lower.get(key, range)),
    localPath: (key) => upper.localPath(key),
    delete: (key) => upper.delete(key),
    list: (prefix) => upper.list(prefix),
  };
}
