/** Stage 1, inside the request: the workspace becomes a stored, digest-named tar that nothing changes any more. */
import { makePlan } from '../build/plan.ts';
import { KilnError } from '../domain/errors.ts';
import type { PlanOverrides } from '../domain/plan.ts';
import { insideWorkspace } from '../source/paths.ts';
import { type Snapshot, snapshotSource } from '../source/snapshot.ts';
import { holdObjects } from '../store/object.ts';
import type { Ports } from './run.ts';
import { workspaceFiles } from './workspace-files.ts';

export interface Freeze {
  root: string;
  overrides: PlanOverrides;
  include_git: boolean;
  /** Remembers the last snapshot of this workspace, so that an unchanged one is recognised without reading it. */
  cache_file: string;
}

/** Rejects with SNAPSHOT_FAILED, SOURCE_TOO_LARGE or STORAGE_FAILED; nothing refers to anything then. */
export function freeze(ports: Ports, of: Freeze): Promise<Snapshot> {
  return stored(ports, () => takeSnapshot(ports, of));
}

/** Retention may remove an equal, old object between the look at it and its row: then it is taken once more. */
export async function stored(
  ports: Pick<Ports, 'db' | 'objects'>,
  take: () => Promise<Snapshot>,
): Promise<Snapshot> {
  for (let tries = 0; tries < 3; tries++) {
    const snapshot = await take();
    if ((await holdObjects(ports.db, ports.objects, [{ key: snapshot.key, kind: 'source' }])) === null)
      return snapshot;
  }
  throw new KilnError('STORAGE_FAILED', 'The stored snapshot vanished again and again; try once more.');
}

async function takeSnapshot(ports: Ports, of: Freeze): Promise<Snapshot> {
  const snapshot = await snapshotAs(ports, of, of.cache_file);
  const { key: object_key, sha256 } = snapshot;
  const is_sound =
    !snapshot.unchanged ||
    !ports.verifier.isDoubted(object_key) ||
    (await ports.verifier.verify({ object_key, sha256 })) === 'whole';
  // Read anew, it takes the place of the damaged one.
  return is_sound ? snapshot : snapshotAs(ports, of, null);
}

async function snapshotAs(ports: Ports, of: Freeze, cache_file: string | null): Promise<Snapshot> {
  return snapshotSource({
    root: of.root,
    output_path: of.overrides.output_path ?? null,
    include_git: of.include_git,
    keep_outputs: await hasNothingToBuild(of),
    limits: ports.limits.source,
    store: ports.objects,
    cache_file,
    tmp_dir: ports.tmp_dir,
  });
}

/** Static content that nothing would build again: its `dist` or `build` folder is what gets published. */
function hasNothingToBuild(of: Freeze): Promise<boolean> {
  return insideWorkspace(of.root, async (folders) => {
    const planned = makePlan(workspaceFiles(folders), { overrides: of.overrides });
    return planned.ok && planned.plan.kind === 'static' && planned.plan.build.length === 0;
  });
}
