/** Filling a workspace: a whole archive, or only what changed since last time. */
import { randomBytes } from 'node:crypto';
import { lstat, mkdir, readdir, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { Readable } from 'node:stream';
import { KilnError } from '../domain/errors.ts';
import { UPLOAD_PREFIX } from '../domain/sandbox.ts';
import { DigestMismatch, extractTar } from '../source/extract.ts';
import { applySync, type ManifestEntry } from '../source/manifest.ts';
import { resolveInside } from '../source/paths.ts';
import { limitOf, streamBody } from './body.ts';
import { type AnyCall, handle, type Mounted, type Reply, reply } from './call.ts';
import * as contract from './contract/file.ts';
import { workspaceOf } from './file.ts';
import { usable } from './find.ts';

async function upload(
  call: AnyCall,
  sandbox_id: string,
  o: { path: string; clear: boolean; sha256: string | undefined },
): Promise<Reply> {
  const root = await resolveInside(await workspaceOf(call, sandbox_id), '.');
  const target = await resolveInside(root, o.path);
  const kept = await lstat(target).catch(() => null);
  if (kept && !kept.isDirectory())
    throw new KilnError('CONFLICT', `${JSON.stringify(o.path)} is not a folder.`);
  // Beside the workspace, so that nothing half-done is seen in it, and a rename away.
  const beside = path.join(path.dirname(root), `${UPLOAD_PREFIX}${randomBytes(6).toString('hex')}`);
  try {
    const { files, bytes, sha256 } = await unpack(call, o.clear ? beside : target, o.sha256);
    if (o.clear) await replace(target, beside);
    return reply({ files, bytes, sha256 });
  } finally {
    await rm(beside, { recursive: true, force: true });
  }
}

async function unpack(call: AnyCall, into: string, expect_sha256: string | undefined) {
  const max_bytes = limitOf('archive', call.deps.limits);
  let too_large: unknown;
  const counted = (async function* () {
    try {
      yield* streamBody(call.request, max_bytes);
    } catch (error) {
      too_large = error;
      throw error;
    }
  })();
  try {
    return await extractTar({
      input: Readable.from(counted, { objectMode: false }),
      into,
      limits: { max_bytes, max_files: call.deps.limits.archive_files },
      signal: call.signal,
      ...(expect_sha256 === undefined ? {} : { expect_sha256 }),
    });
  } catch (error) {
    if (too_large instanceof KilnError) throw too_large;
    // Here it is the upload that is not what the caller said, not an object of ours.
    if (error instanceof DigestMismatch)
      throw new KilnError('INVALID_ARCHIVE', 'The archive is not the one its sha256 names; send it again.');
    throw error;
  }
}

/** Takes out what is in `target` and moves in what is in `from`. */
async function replace(target: string, from: string): Promise<void> {
  await mkdir(target, { recursive: true });
  for (const name of await readdir(target))
    await rm(path.join(target, name), { recursive: true, force: true });
  for (const name of await readdir(from)) await rename(path.join(from, name), path.join(target, name));
}

async function sync(call: AnyCall, sandbox_id: string, manifest: ManifestEntry[]): Promise<Reply> {
  const root = await call.deps.engine.workspaceDir(await usable(call, sandbox_id));
  const cache_file = path.join(path.dirname(root), 'manifest.cache');
  // The caller's manifest is the whole truth: what it left out must not survive here, whatever its name.
  return reply(await applySync(root, manifest, { cache_file, include_git: true, keep_outputs: true }));
}

export const archiveHandlers: Mounted[] = [
  handle(contract.putArchive, (call) =>
    upload(call, call.params.id, {
      path: call.query.path ?? '/workspace',
      clear: call.query.clear === 'true',
      sha256: call.query.sha256,
    }),
  ),
  handle(contract.syncFiles, (call) => sync(call, call.params.id, call.body.manifest)),
];
