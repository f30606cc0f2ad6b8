/**
 * A look at a whole tree: what is in it (walk) and what each entry is (stat), nothing read. Listing folders and statting
 * files is most of the work of an unchanged publish, so it is spread over threads: one goes over the top of the
 * tree until there are folders enough to share out.
 */
import { setImmediate as breathe } from 'node:timers/promises';
import { type Listing, mergeListings, settleListing, sortByBytes } from './listing.ts';
import type { SourceRules, Survey } from './survey-thread.ts';
import { runTask, SPREAD } from './threads.ts';
import { ROW } from './tree.ts';
import { tooManyFiles, type Walk, walkSteps } from './walk.ts';

const SHARE_AT = 16 * SPREAD;
const MAX_NAMED = 100;
/** A hostile `.kilnignore` can take for ever; its thread is ended then. */
const DEADLINE_MS = 60_000;
/** How long a walk outside a thread may hold the event loop at a time. */
const SLICE_MS = 5;
/** Below this, splitting a stat run over threads costs more than it saves. */
const MIN_STATS_PER_THREAD = 1_000;

/**
 * Looks at a source tree with the rules of a snapshot: the built-in ones and the tree's own `.kilnignore`.
 * `root` is a real path.
 * @throws TreeUnreadable, TreeChanged (look again), KilnError SOURCE_TOO_LARGE over `max_entries`
 */
export async function surveySource(root: string, rules: SourceRules, max_entries: number): Promise<Survey> {
  const look = (from: string[], share_at: number | null) =>
    runTask({ kind: 'survey', root, rules, max_entries, from, share_at }, [], DEADLINE_MS);
  const top = await look([''], SHARE_AT);
  if (top.unread.length === 0) return top;
  const shares = Array.from({ length: SPREAD }, (_, n) => top.unread.filter((_, i) => i % SPREAD === n));
  const parts = [top, ...(await Promise.all(shares.map((share) => look(share, null))))];
  const listing = mergeListings(parts.map((part) => part.listing));
  if (listing.paths.length > max_entries) throw tooManyFiles(max_entries);
  const named = (of: 'left_out' | 'secrets_left_out') =>
    sortByBytes(parts.flatMap((part) => part[of])).slice(0, MAX_NAMED);
  return { listing, left_out: named('left_out'), secrets_left_out: named('secrets_left_out'), unread: [] };
}

/**
 * Looks at any tree. `exclude` is a function and cannot go to a thread, so the walk happens here, in slices.
 * @throws as surveySource
 */
export async function surveyTree(
  root: string,
  exclude: (rel: string, is_dir: boolean) => boolean,
  max_entries: number,
): Promise<Listing> {
  const steps = walkSteps(root, (rel, is_dir) => (exclude(rel, is_dir) ? 'excluded' : null), { max_entries });
  let until_ms = performance.now() + SLICE_MS;
  let step = steps.next();
  while (!step.done) {
    if (performance.now() > until_ms) {
      await breathe();
      until_ms = performance.now() + SLICE_MS;
    }
    step = steps.next();
  }
  const walk: Walk = step.value;
  const paths = sortByBytes(walk.paths);
  return settleListing({ paths, rows: await statInThreads(root, paths) }, walk.folders);
}

/** A stat row per path (see ROW), in their order. @throws TreeUnreadable */
export async function statInThreads(root: string, paths: string[]): Promise<Float64Array> {
  const threads = Math.max(1, Math.min(SPREAD, Math.floor(paths.length / MIN_STATS_PER_THREAD)));
  const share = Math.ceil(paths.length / threads);
  const parts = await Promise.all(
    Array.from({ length: threads }, (_, n) =>
      runTask({ kind: 'stat', root, paths: paths.slice(n * share, (n + 1) * share) }),
    ),
  );
  const rows = new Float64Array(paths.length * ROW.width);
  parts.forEach((part, n) => {
    rows.set(part, n * share * ROW.width);
  });
  return rows;
}
