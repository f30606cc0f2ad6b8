import type { Release } from '../domain/release.ts';
import { releaseById } from '../store/release.ts';
import type { Run } from './run.ts';

/** The release that this version has already, from an earlier attempt or an earlier publish. */
export async function storedRelease(run: Run): Promise<Release | null> {
  return run.version.release_id === null ? null : releaseById(run.db, run.version.release_id);
}
