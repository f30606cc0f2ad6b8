/** What can be made or fetched again, kept within bounds: package caches of builds, root file systems of images. */
import { collectCaches } from '../isolation/cache.ts';
import { imageFileNames } from '../release/oci/image.ts';
import { rootFileNames, splitRoot } from '../release/oci/machine-root.ts';
import { sweepRootFiles } from '../release/oci/squashfs.ts';
import { livingDeploymentIds } from '../store/deployment.ts';
import { unstoppedInstances } from '../store/instance.ts';
import { unfinishedPublishes } from '../store/operation.ts';
import { releasesById } from '../store/release.ts';
import type { EngineContext } from './context.ts';

/** Caches of removed deployments go, and of all others the ones used longest ago, until they fit. */
export async function boundCaches(ctx: EngineContext): Promise<string[]> {
  const [living, busy] = await Promise.all([livingDeploymentIds(ctx.db), unfinishedPublishes(ctx.db)]);
  return collectCaches({
    dir: ctx.folders.build_caches,
    total_max_bytes: ctx.cache_total_bytes,
    living: new Set(living),
    busy: new Set(busy),
  });
}

/** Root file systems stay while an instance runs from them, and what the base image of builds gives to all. */
export async function sweepImages(ctx: EngineContext): Promise<number> {
  const instances = await unstoppedInstances(ctx.db);
  const releases = await releasesById(ctx.db, [...new Set(instances.map((row) => row.release_id))]);
  const base = ctx.builder.base_image ?? null;
  const keep = new Set(base ? rootFileNames(splitRoot(base, base)) : []);
  for (const { kind, sha256 } of releases.values()) {
    if (kind !== 'oci') continue;
    // An image that cannot be read is not started again; what runs of it keeps its own links to the files.
    const names = await imageFileNames(ctx.objects, `sha256:${sha256}`, base).catch(() => []);
    for (const name of names) keep.add(name);
  }
  return sweepRootFiles(ctx.folders.images, keep);
}
