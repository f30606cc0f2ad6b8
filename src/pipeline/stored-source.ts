/** The frozen source of a version, read from the store: in memory when it is small and plain, or laid out in a folder. */
import { mkdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { KilnError } from '../domain/errors.ts';
import { failure } from '../domain/failure.ts';
import { DigestMismatch, extractTar } from '../source/extract.ts';
import { readSmallTree, type SmallTree } from '../source/small-tree.ts';
import { failed, ok, type Result, type Run } from './run.ts';

/** Sources up to this size are planned in memory; a site that needs no build is then never laid out on disk. */
const SMALL_SOURCE_BYTES = 16 * 1024 * 1024;

/** Null for a source that is large or holds links. */
export async function smallTree(run: Run, source_key: string): Promise<Result<SmallTree | null>> {
  if (run.version.source_size_bytes > SMALL_SOURCE_BYTES) return ok(null);
  return reading(run, source_key, async () =>
    readSmallTree(await run.objects.get(source_key), run.version.source_sha256),
  );
}

/** The folder that it was laid out in, which is emptied before. */
export function layOut(run: Run, source_key: string): Promise<Result<string>> {
  return reading(run, source_key, async () => {
    const work = run.workDir(run.deployment.id);
    await rm(work, { recursive: true, force: true });
    const dir = path.join(work, 'workspace');
    await mkdir(dir, { recursive: true });
    await extractTar({
      input: await run.objects.get(source_key),
      into: dir,
      limits: run.limits.source,
      expect_sha256: run.version.source_sha256,
      signal: run.signal,
    });
    return dir;
  });
}

async function reading<T>(run: Run, source_key: string, read: () => Promise<T>): Promise<Result<T>> {
  try {
    return ok(await read());
  } catch (error) {
    if (error instanceof KilnError && error.code === 'ARTIFACT_GONE') return failed(gone(run));
    if (error instanceof DigestMismatch && (await isDamaged(run, source_key))) return failed(damaged(run));
    throw error;
  }
}

/** Looked at once more, from the start: one bad reading is no proof. The verifier remembers it for the next snapshot. */
async function isDamaged(run: Run, object_key: string): Promise<boolean> {
  const verdict = await run.verifier.verify({ object_key, sha256: run.version.source_sha256 });
  return verdict === 'corrupt';
}

function gone(run: Run) {
  return failure({
    stage: 'plan',
    code: 'SOURCE_GONE',
    fault: 'engine',
    retryable: true,
    message: `The source snapshot of version ${run.version.version_number} is not stored any more.`,
    next_step: 'Production is unchanged. Publish again, which takes a new snapshot.',
  });
}

function damaged(run: Run) {
  return failure({
    stage: 'plan',
    code: 'ARTIFACT_CORRUPT',
    fault: 'engine',
    retryable: true,
    message: `The stored source snapshot of version ${run.version.version_number} does not match its digest.`,
    next_step:
      'Production is unchanged. Check the disk or the object store, then publish again, which takes a new snapshot.',
  });
}
