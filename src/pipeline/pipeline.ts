/**
 * The story of a publish, on one screen.
 *
 *   snapshot ──► build ──► release ──► health ──► promotion
 *   (request)    (engine, one lease per operation)
 *
 * Stage 1 has run inside the request already (`freeze`, 1-snapshot.ts): without a snapshot there is no version row
 * (I7). What follows starts from the version row, so it also resumes there after a crash: a version that has its
 * release goes straight to health, any other builds again from the stored snapshot.
 */
import { buildRelease } from './2-build.ts';
import { packRelease } from './3-release.ts';
import { proveHealthy } from './4-health.ts';
import { type Promoted, promote } from './5-promotion.ts';
import type { Result, Run } from './run.ts';
import { storedRelease } from './stored-release.ts';

export async function publish(run: Run): Promise<Result<Promoted>> {
  let release = await storedRelease(run);
  if (release === null) {
    const built = await buildRelease(run);
    if (!built.ok) return built;
    const packed = await packRelease(run, built.value);
    if (!packed.ok) return packed;
    release = packed.value;
  }
  const healthy = await proveHealthy(run, release);
  if (!healthy.ok) return healthy;
  return promote(run, healthy.value);
}

/** Promote or roll back to a version whose release is stored: the same story without the build. */
export async function switchTo(run: Run): Promise<Result<Promoted>> {
  const release = await storedRelease(run);
  if (release === null) throw new Error(`version ${run.version.id} has no release`);
  const healthy = await proveHealthy(run, release);
  if (!healthy.ok) return healthy;
  return promote(run, healthy.value);
}
