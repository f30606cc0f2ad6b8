/**
 * Copies of workspaces. A stored one is a canonical tar in the object store, without secrets (I10); a live one goes
 * through a temporary tar, secrets and all, since it never leaves the folders of sandboxes. A new sandbox is filled
 * before its row is written: a crash in between leaves a folder without a row, which the next start sweeps.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, rm } from 'node:fs/promises';
import path from 'node:path';
import type { Sandbox } from '../domain/sandbox.ts';
import { stored } from '../pipeline/1-snapshot.ts';
import { extractTar } from '../source/extract.ts';
import { ArtifactTooLarge, packTree } from '../source/pack.ts';
import { purge } from '../source/remove.ts';
import { explain, snapshotSource } from '../source/snapshot.ts';
import { TarTooLarge } from '../source/tree.ts';
import type { EngineContext } from './context.ts';
import type { StoredWorkspace, WorkspaceSource } from './engine.ts';

/** The part of the engine's context that this needs. */
export type CopyContext = Pick<EngineContext, 'db' | 'objects' | 'tmp_dir'> & {
  folders: Pick<EngineContext['folders'], 'sandboxes'>;
  limits: Pick<EngineContext['limits'], 'source'>;
};

const folderOf = (ctx: CopyContext, sandbox_id: string) => path.join(ctx.folders.sandboxes, sandbox_id);
const workspaceOf = (ctx: CopyContext, sandbox_id: string) =>
  path.join(folderOf(ctx, sandbox_id), 'workspace');

/** Errors: SNAPSHOT_FAILED, SOURCE_TOO_LARGE, STORAGE_FAILED; nothing refers to anything then. */
export async function snapshotSandbox(ctx: CopyContext, sandbox: Sandbox): Promise<StoredWorkspace> {
  const root = workspaceOf(ctx, sandbox.id);
  await mkdir(root, { recursive: true });
  const { sha256, key, size_bytes, files, secrets_left_out } = await stored(ctx, () =>
    snapshotSource({
      root,
      output_path: null,
      include_git: true,
      wanted: 'all_but_secrets',
      limits: ctx.limits.source,
      store: ctx.objects,
      // The one of publishes remembers another choice of files.
      cache_file: null,
      tmp_dir: ctx.tmp_dir,
    }),
  );
  return { sha256, object_key: key, size_bytes, files, secrets_left_out };
}

/** Errors: ARTIFACT_GONE, and those of a snapshot. Whatever fails, the folder is gone. */
export async function fillSandbox(
  ctx: CopyContext,
  sandbox_id: string,
  from: WorkspaceSource,
): Promise<void> {
  const into = workspaceOf(ctx, sandbox_id);
  const limits = { max_files: ctx.limits.source.max_files, max_bytes: ctx.limits.source.max_bytes };
  try {
    await mkdir(into, { recursive: true });
    if ('live' in from) return await copyLive(ctx, workspaceOf(ctx, from.live.id), into, limits);
    const { object_key, sha256 } = from.stored;
    await extractTar({ input: await ctx.objects.get(object_key), into, limits, expect_sha256: sha256 });
  } catch (error) {
    await discardSandbox(ctx, sandbox_id);
    throw error;
  }
}

async function copyLive(
  ctx: CopyContext,
  root: string,
  into: string,
  limits: { max_files: number; max_bytes: number },
): Promise<void> {
  await mkdir(root, { recursive: true });
  await mkdir(ctx.tmp_dir, { recursive: true });
  const out_path = path.join(ctx.tmp_dir, `fork-${randomBytes(8).toString('hex')}.tar`);
  try {
    const { max_bytes } = limits;
    await packTree({ root, prefix: '', out_path, compress: 'none', max_bytes });
    await extractTar({ input: out_path, into, limits });
  } catch (error) {
    throw explain(
      error instanceof ArtifactTooLarge ? new TarTooLarge(error.size_bytes, error.max_bytes) : error,
    );
  } finally {
    await rm(out_path, { force: true });
  }
}

export async function discardSandbox(ctx: CopyContext, sandbox_id: string): Promise<void> {
  await purge(folderOf(ctx, sandbox_id));
}
