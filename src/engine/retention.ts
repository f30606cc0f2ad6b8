/**
 * Retention: what nobody can need any more goes, by age and count, decided from references in the database only. An
 * object whose key is not of Kiln's making is never touched; neither is anything an active version, an unfinished
 * operation, an instance that was not stopped or one of a deployment's newest versions refers to.
 */
import { readdir, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { deleteAuditBefore } from '../store/audit.ts';
import { deleteEventsBefore } from '../store/event.ts';
import { deleteIdempotentBefore } from '../store/idempotency.ts';
import { deleteStoppedBefore } from '../store/instance.ts';
import {
  forgetObject,
  idsOfLiveLogs,
  listObjects,
  lockUnused,
  type ObjectReference,
  objectReferences,
  REASONS_TO_KEEP,
  referencesTo,
  type StoredObject,
} from '../store/object.ts';
import { markCollected } from '../store/release.ts';
import { transact } from '../store/transact.ts';
import { deleteDeliveriesBefore } from '../store/webhook.ts';
import type { EngineContext } from './context.ts';
import { bookStrayObjects } from './reconcile.ts';
import { boundCaches, sweepImages } from './scratch.ts';

export interface GcItem {
  key: string;
  kind: StoredObject['kind'] | 'build_log' | 'instance_log' | 'cache';
  size_bytes: number;
  /** Why it goes, or why it stays. */
  reason: string;
}

export interface GcReport {
  dry_run: boolean;
  removed: GcItem[];
  kept: GcItem[];
  removed_bytes: number;
}

const DAY_MS = 24 * 3600 * 1000;
const AUDIT_DAYS = 365;
/** A fresh object may belong to a publish that has not written its row yet. */
const FRESH_MS = 3600 * 1000;

export async function collect(
  ctx: EngineContext,
  options: { dry_run: boolean; signal?: AbortSignal },
): Promise<GcReport> {
  const report: GcReport = { dry_run: options.dry_run, removed: [], kept: [], removed_bytes: 0 };
  const now = ctx.now();
  if (!options.dry_run) await bookStrayObjects(ctx);
  const references = await objectReferences(ctx.db, ctx.retention.keep_versions);
  for (const object of await listObjects(ctx.db)) {
    options.signal?.throwIfAborted();
    const verdict = judge(object, references.get(object.key) ?? [], now, ctx.retention.days);
    const item = {
      key: object.key,
      kind: object.kind,
      size_bytes: object.size_bytes,
      reason: verdict.reason,
    };
    const kept = verdict.keep
      ? verdict.reason
      : options.dry_run
        ? null
        : await removeObject(ctx, object, now);
    if (kept === null) report.removed.push(item);
    else report.kept.push({ ...item, reason: kept });
  }
  const before = new Date(now.getTime() - ctx.retention.days * DAY_MS);
  const live = await idsOfLiveLogs(ctx.db);
  await collectFiles(ctx, ctx.folders.build_logs, { kind: 'build_log', before, live }, report);
  await collectFiles(ctx, ctx.folders.instance_logs, { kind: 'instance_log', before, live }, report);
  await collectFiles(ctx, ctx.folders.caches, { kind: 'cache', before, live }, report);
  if (!options.dry_run) {
    await boundCaches(ctx);
    await sweepImages(ctx);
    await ctx.image_builder?.prune(ctx.cache_total_bytes);
    await deleteStoppedBefore(ctx.db, before);
    await deleteEventsBefore(ctx.db, before);
    await deleteDeliveriesBefore(ctx.db, before);
    await deleteAuditBefore(ctx.db, new Date(now.getTime() - AUDIT_DAYS * DAY_MS));
    await deleteIdempotentBefore(ctx.db, new Date(now.getTime() - ctx.idempotency_retention_ms));
    await ctx.database.reclaim();
  }
  report.removed_bytes = report.removed.reduce((sum, item) => sum + item.size_bytes, 0);
  return report;
}

/** Pure: may this object go, and why (not)? */
export function judge(
  object: StoredObject,
  references: readonly ObjectReference[],
  now: Date,
  days: number,
): { keep: boolean; reason: string } {
  const age_ms = now.getTime() - object.last_used_at.getTime();
  if (age_ms < FRESH_MS) return { keep: true, reason: 'used within the last hour' };
  for (const why of REASONS_TO_KEEP) {
    const found = references.find((reference) => reference.why === why);
    if (found) return { keep: true, reason: `${why}: ${found.what}` };
  }
  const young = references.find((r) => now.getTime() - r.since.getTime() < days * DAY_MS);
  if (young)
    return {
      keep: true,
      reason: `${young.what} is younger than ${days} days`,
    };
  if (references.length === 0 && age_ms < days * DAY_MS)
    return { keep: true, reason: `unreferenced, but used within ${days} days` };
  return {
    keep: false,
    reason:
      references.length === 0 ? 'nothing refers to it' : `only versions older than ${days} days refer to it`,
  };
}

/**
 * The object goes while its row is locked, and only if it was not used and nobody refers to it since it was judged,
 * which may be minutes ago. Whoever is about to refer to it enters it first (`holdObjects`): that makes the row a later
 * one, or waits here and then finds the object gone. Answers why the object stays; null when it is gone.
 */
async function removeObject(ctx: EngineContext, object: StoredObject, now: Date): Promise<string | null> {
  const { days, keep_versions } = ctx.retention;
  return transact(ctx.db, async (trx) => {
    if (!(await lockUnused(trx, object))) return 'used again while it was looked at';
    const verdict = judge(object, await referencesTo(trx, object.key, keep_versions), now, days);
    if (verdict.keep) return verdict.reason;
    await forgetObject(trx, object.key);
    await markCollected(trx, object.key, now);
    await ctx.objects.delete(object.key);
    return null;
  });
}

/** `live`: an app may say nothing for months, and its log is open; how the live version was built can always be read. */
async function collectFiles(
  ctx: EngineContext,
  dir: string,
  { kind, before, live }: { kind: GcItem['kind']; before: Date; live: ReadonlySet<string> },
  report: GcReport,
): Promise<void> {
  for (const name of await readdir(dir)) {
    const file = path.join(dir, name);
    const info = await stat(file).catch(() => null);
    if (info === null || info.mtime >= before || live.has(name.split('.')[0]!)) continue;
    report.removed.push({
      key: path.relative(ctx.folders.data, file),
      kind,
      size_bytes: info.size,
      reason: `not written for ${ctx.retention.days} days`,
    });
    if (!report.dry_run) await rm(file, { force: true });
  }
}
