/** Filling a workspace: a whole archive, or only what changed since last time. */
import { lstat, mkdir, readdir, rename } from 'node:fs/promises';
import path from 'node:path';
import { Readable } from 'node:stream';
import { KilnError } from '../domain/errors.ts';
import { DigestMismatch, extractTar } from '../source/extract.ts';
import { applySync, type ManifestEntry } from '../source/manifest.ts';
import { followInside, insideWorkspace } from '../source/paths.ts';
import { makeBeside, moveOut, purge } from '../source/remove.ts';
import { errno, type Folders, isGone, isOtherKind } from '../source/tree.ts';
import { limitOf, streamBody } from './body.ts';
import { type AnyCall, handle, type Mounted, type Reply, reply } from './call.ts';
import * as contract from './contract/file.ts';
import { gone, workspaceOf } from './file.ts';
import { usable } from './find.ts';

interface Target {
  root: string;
  /** Relative to the root. It may be stale by the time the body has come: whoever goes there enters no link. */
  folder: string;
}

async function upload(
  call: AnyCall,
  sandbox_id: string,
  o: { path: string; clear: boolean; sha256: string | undefined },
): Promise<Reply> {
  const target = await insideWorkspace(await workspaceOf(call, sandbox_id), async (folders) => {
    const folder = followInside(folders, o.path);
    const kept = await lookAt(folders, folder).catch(() => null);
    if (kept && !kept.isDirectory())
      throw new KilnError('CONFLICT', `${JSON.stringify(o.path)} is not a folder.`);
    return { root: folders.root, folder };
  }).catch((error) => gone(o.path, error));
  if (!o.clear) return reply(await unpack(call, { into: target.root, below: target.folder }, o.sha256));
  // Beside the workspace, so that nothing half-done is seen in it, and a rename away.
  const beside = await makeBeside(target.root);
  try {
    const made = await unpack(call, { into: path.join(beside, 'new') }, o.sha256);
    await replace(target, beside);
    return reply(made);
  } finally {
    await purge(beside).catch((error) =>
      call.deps.log('warn', 'an upload was not cleared away', { beside, error: String(error) }),
    );
  }
}

const lookAt = async (folders: Folders, rel: string) => lstat(folders.entry(rel));

async function unpack(
  call: AnyCall,
  where: { into: string; below?: string },
  expect_sha256: string | undefined,
) {
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
    const { files, bytes, sha256 } = await extractTar({
      input: Readable.from(counted, { objectMode: false }),
      ...where,
      limits: { max_bytes, max_files: call.deps.limits.archive_files },
      signal: call.signal,
      ...(expect_sha256 === undefined ? {} : { expect_sha256 }),
    });
    return { files, bytes, sha256 };
  } catch (error) {
    if (too_large instanceof KilnError) throw too_large;
    // Here it is the upload that is not what the caller said, not an object of ours.
    if (error instanceof DigestMismatch)
      throw new KilnError('INVALID_ARCHIVE', 'The archive is not the one its sha256 names; send it again.');
    throw error;
  }
}

const TRIES = 5;

/** Takes out what is in the folder, to `beside/old`, and moves in what is in `beside/new`. */
async function replace({ root, folder }: Target, beside: string): Promise<void> {
  const fresh = path.join(beside, 'new');
  const old = path.join(beside, 'old');
  await mkdir(old);
  let taken = 0;
  const takeOut = (at: string) => moveOut(at, path.join(old, `${taken++}`)).catch(ignoreGone);
  try {
    await insideWorkspace(
      root,
      async (folders) => {
        const into = folders.at(folder);
        for (const name of await readdir(into)) await takeOut(`${into}/${name}`);
        for (const name of await readdir(fresh))
          for (let tries = 1; ; tries++)
            try {
              await rename(path.join(fresh, name), `${into}/${name}`);
              break;
            } catch (error) {
              // Something of this name was made while the others went.
              if (tries === TRIES || !IN_THE_WAY.includes(errno(error))) throw error;
              await takeOut(`${into}/${name}`);
            }
      },
      { create: true },
    );
  } catch (error) {
    if (!isGone(error) && !isOtherKind(error) && !IN_THE_WAY.includes(errno(error))) throw error;
    throw new KilnError(
      'CONFLICT',
      'What runs in the sandbox changed the folder while it was replaced; stop it, or send the archive again.',
    );
  }
}

const IN_THE_WAY = ['EEXIST', 'ENOTEMPTY', 'EISDIR', 'ENOTDIR'];

function ignoreGone(error: unknown): void {
  if (!isGone(error)) throw error;
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
