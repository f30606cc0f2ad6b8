/** Stage 1, inside the request: the workspace becomes a stored, digest-named tar that nothing changes any more. */
import { diskFiles } from '../build/files.ts';
import { makePlan } from '../build/plan.ts';
import { KilnError } from '../domain/errors.ts';
import type { PlanOverrides } from '../domain/plan.ts';
import { type Snapshot, snapshotSource } from '../source/snapshot.ts';
import { recordObject } from '../store/object.ts';
import type { Ports } from './run.ts';

export interface Freeze {
  root: string;
  overrides: PlanOverrides;
  include_git: boolean;
  /** Remembers the last snapshot of this workspace, so that an unchanged one is recognised without reading it. */
  cache_file: string;
}

/** Rejects with SNAPSHOT_FAILED, SOURCE_TOO_LARGE or STORAGE_FAILED; nothing has been written to the database then. */
export async function freeze(ports: Ports, of: Freeze): Promise<Snapshot> {
  for (let tries = 0; tries < 3; tries++) {
    const snapshot = await takeSnapshot(ports, of);
    await recordObject(ports.db, { key: snapshot.key, kind: 'source', size_bytes: snapshot.stored_bytes });
    // Retention may have removed an equal, old object between our look and our row; from the row on it keeps off.
    if ((await ports.objects.head(snapshot.key)) !== null) return snapshot;
  }
  throw new KilnError('STORAGE_FAILED', 'The stored snapshot vanished again and again; try once more.');
}

function takeSnapshot(ports: Ports, of: Freeze): Promise<Snapshot> {
  return snapshotSource({
    root: of.root,
    output_path: of.overrides.output_path ?? null,
    include_git: of.include_git,
    keep_outputs: hasNothingToBuild(of),
    limits: ports.limits.source,
    store: ports.objects,
    cache_file: of.cache_file,
    tmp_dir: ports.tmp_dir,
  });
}

/** Static content that nothing would build again: its `dist` or `build` folder is what gets published. */
function hasNothingToBuild(of: Freeze): boolean {
  const planned = makePlan(diskFiles(of.root), { overrides: of.overrides });
  return planned.ok && planned.plan.kind === 'static' && planned.plan.build.length === 0;
}
