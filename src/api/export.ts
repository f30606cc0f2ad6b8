/** Files of a sandbox to take away: one as it is, many as one tar.gz. */
import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { lstat, open, rm } from 'node:fs/promises';
import path from 'node:path';
import { Readable } from 'node:stream';
import { createGzip } from 'node:zlib';
import { KilnError } from '../domain/errors.ts';
import { ArtifactTooLarge, packTree, TreeUnreadable } from '../source/pack.ts';
import { followInside, insideWorkspace, openInside, shownPath } from '../source/paths.ts';
import type { Folders } from '../source/tree.ts';
import { tooLarge } from './body.ts';
import { type AnyCall, data, handle, type Mounted } from './call.ts';
import * as contract from './contract/export.ts';
import { invalidFields } from './errors.ts';
import { gone, workspaceOf } from './file.ts';
import { findSandbox } from './find.ts';
import { API_BASE } from './openapi.ts';

interface Chosen {
  /** Relative to the workspace; '' for all of it. */
  relative: string;
  /** As the caller sees it. */
  path: string;
  size_bytes: number;
  is_dir: boolean;
}

async function choose(folders: Folders, asked: string[]): Promise<Chosen[]> {
  if (asked.length === 0)
    throw new KilnError('MISSING_PARAM', 'Say what to export: `path`, or `paths[]` once for each.');
  if (asked.length > contract.MAX_PATHS)
    throw invalidFields({ 'paths[]': [`must be at most ${contract.MAX_PATHS}`] });
  const chosen: Chosen[] = [];
  for (const one of asked) {
    const relative = followInside(folders, one);
    const stats = await look(folders, relative).catch((error) => gone(one, error));
    if (!stats.isFile() && !stats.isDirectory())
      throw new KilnError('CONFLICT', `${JSON.stringify(one)} is neither a file nor a folder.`);
    const is_dir = stats.isDirectory();
    chosen.push({ relative, path: shownPath(relative), size_bytes: stats.size, is_dir });
  }
  return chosen;
}

const look = async (folders: Folders, relative: string) => lstat(folders.entry(relative));

const nameOf = (chosen: Chosen) => (chosen.relative === '' ? 'workspace' : path.basename(chosen.relative));

async function describe(
  call: AnyCall,
  sandbox_id: string,
  asked: string[],
  said: { label?: string | null; filename?: string | null },
): Promise<contract.ExportView> {
  const { id } = await findSandbox(call, sandbox_id);
  const chosen = await insideWorkspace(await workspaceOf(call, id), (folders) => choose(folders, asked));
  const address = (query: [string, string][]) =>
    `${API_BASE}/sandboxes/${id}/exports/download?${new URLSearchParams(query)}`;
  const archive: [string, string][] = chosen.map((one) => ['paths[]', one.path]);
  if (said.filename) archive.push(['filename', said.filename]);
  return {
    id: call.deps.newId('exp'),
    sandbox_id: id,
    label: said.label ?? said.filename ?? nameOf(chosen[0]!),
    status: 'ready',
    files: chosen.map((one) => ({
      path: one.path,
      filename: one.is_dir ? `${nameOf(one)}.tar.gz` : nameOf(one),
      size_bytes: one.size_bytes,
      is_dir: one.is_dir,
      download_url: address([['path', one.path]]),
    })),
    archive_download_url: address(archive),
    created_at: call.deps.now().toISOString(),
  };
}

async function download(call: AnyCall, sandbox_id: string, filename: string | undefined): Promise<Response> {
  const query = new URL(call.request.url).searchParams;
  const single = query.get('path');
  const asked = single === null ? [...query.getAll('paths[]'), ...query.getAll('paths')] : [single];
  return insideWorkspace(await workspaceOf(call, sandbox_id), async (folders) => {
    const chosen = await choose(folders, asked);
    const first = chosen[0]!;
    if (single !== null && !first.is_dir) return sendFile(folders, first, filename ?? nameOf(first));
    const usual = chosen.length === 1 ? `${nameOf(first)}.tar.gz` : `${sandbox_id}.tar.gz`;
    return sendArchive(call, folders.root, chosen, filename ?? usual);
  });
}

async function sendFile(folders: Folders, of: Chosen, filename: string): Promise<Response> {
  const file = await openInside(folders, of.path, constants.O_RDONLY).catch((error) => gone(of.path, error));
  const { size } = await file.stat();
  // Not a byte more than announced, should the file grow meanwhile.
  const bytes = size === 0 ? Readable.from([]) : file.createReadStream({ start: 0, end: size - 1 });
  if (size === 0) await file.close();
  return attachment(bytes, 'application/octet-stream', filename, size);
}

/** Packed whole before the first byte goes out, so that what cannot be read is an error and not a torn archive. */
async function sendArchive(
  call: AnyCall,
  root: string,
  chosen: Chosen[],
  filename: string,
): Promise<Response> {
  const out_path = path.join(path.dirname(root), `export-${randomBytes(6).toString('hex')}.tar`);
  const max_bytes = call.deps.limits.archive_bytes;
  try {
    const exclude = excludeOthers(chosen.map(({ relative }) => relative));
    const { signal } = call;
    await packTree({ root, prefix: '', exclude, out_path, compress: 'none', max_bytes, signal });
    const file = await open(out_path);
    const packed = file.createReadStream();
    const zipped = createGzip();
    packed.on('error', (error) => zipped.destroy(error)).pipe(zipped);
    zipped.on('close', () => packed.destroy());
    return attachment(zipped, 'application/gzip', filename, null);
  } catch (error) {
    if (error instanceof ArtifactTooLarge) throw tooLarge(max_bytes);
    if (error instanceof TreeUnreadable) throw new KilnError('CONFLICT', `${error.message}; try again.`);
    throw error;
  } finally {
    // The open file lives on without its name.
    await rm(out_path, { force: true });
  }
}

/** Keeps what was chosen, what is below it, and the folders on the way to it. */
function excludeOthers(chosen: string[]): (rel: string, is_dir: boolean) => boolean {
  const wanted = new Set(chosen);
  if (wanted.has('')) return () => false;
  const way = new Set<string>();
  for (const one of chosen)
    for (let at = path.posix.dirname(one); at !== '.'; at = path.posix.dirname(at)) way.add(at);
  return (rel, is_dir) => {
    if (wanted.has(rel) || (is_dir && way.has(rel))) return false;
    for (let at = path.posix.dirname(rel); at !== '.'; at = path.posix.dirname(at))
      if (wanted.has(at)) return false;
    return true;
  };
}

/** Never a type or a disposition that a browser would run: this is the API's own origin. */
function attachment(body: Readable, type: string, filename: string, size: number | null): Response {
  const plain = filename.replace(/[^\x20-\x7e]|["\\%/]/g, '_');
  const encoded = encodeURIComponent(filename.toWellFormed()).replace(
    /['()*]/g,
    (c) => `%${c.charCodeAt(0).toString(16)}`,
  );
  return new Response(Readable.toWeb(body) as ReadableStream<Uint8Array>, {
    headers: {
      'content-type': type,
      'content-disposition': `attachment; filename="${plain}"; filename*=UTF-8''${encoded}`,
      'x-content-type-options': 'nosniff',
      ...(size === null ? {} : { 'content-length': String(size) }),
    },
  });
}

export const exportHandlers: Mounted[] = [
  handle(contract.createExport, async (call) => {
    const { path: single, paths, ...said } = call.body;
    const asked = [...(single ? [single] : []), ...(paths ?? [])];
    if (asked.length === 0) throw invalidFields({ path: ['`path` or `paths` must say what to export'] });
    return data(await describe(call, call.params.id, asked, said), 201);
  }),
  handle(contract.downloadExport, (call) => download(call, call.params.id, call.query.filename)),
];
