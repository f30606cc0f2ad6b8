/** Files of a sandbox. Code in the workspace may be hostile and running: every path goes through source/paths.ts. */
import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { lstat, mkdir, readdir, rename, rm, rmdir } from 'node:fs/promises';
import path from 'node:path';
import { KilnError } from '../domain/errors.ts';
import { openInside, resolveInside } from '../source/paths.ts';
import { tooLarge } from './body.ts';
import { type AnyCall, handle, type Mounted, type Reply, reply } from './call.ts';
import * as contract from './contract/file.ts';
import { invalidFields } from './errors.ts';
import { usable } from './find.ts';

const WORKSPACE = '/workspace';
/** Entries of one listing or tree. */
const ENTRIES = 10_000;

export async function workspaceOf(call: AnyCall, sandbox_id: string): Promise<string> {
  return call.deps.engine.workspaceDir(await usable(call, sandbox_id));
}

/** How the caller sees a path: `/workspace/…`. */
export function shown(root: string, real: string): string {
  const relative = path.relative(root, real);
  return relative === '' ? WORKSPACE : `${WORKSPACE}/${relative}`;
}

export function gone(user_path: string, error: unknown): never {
  const code = (error as NodeJS.ErrnoException).code;
  if (code === 'ENOENT' || code === 'ENOTDIR')
    throw new KilnError('NOT_FOUND', `There is no file ${JSON.stringify(user_path)}.`);
  if (code === 'EISDIR') throw new KilnError('CONFLICT', `${JSON.stringify(user_path)} is a folder.`);
  if (code === 'EACCES' || code === 'EPERM' || code === 'ELOOP' || code === 'ENXIO')
    throw new KilnError('FORBIDDEN_PATH', `${JSON.stringify(user_path)} cannot be opened (${code}).`);
  throw error;
}

function decode(content: string, field: string, max_bytes: number): Buffer {
  if (!/^[A-Za-z0-9+/_\-\s]*={0,2}\s*$/.test(content)) throw invalidFields({ [field]: ['must be base64'] });
  const bytes = Buffer.from(content, 'base64');
  if (bytes.length > max_bytes) throw tooLarge(max_bytes);
  return bytes;
}

/** Whole or not at all: a neighbour is written and renamed over the old one. */
async function write(root: string, user_path: string, bytes: Buffer): Promise<string> {
  const target = await resolveInside(root, user_path);
  const real_root = await resolveInside(root, '.');
  if (target === real_root) throw new KilnError('CONFLICT', `${WORKSPACE} itself is a folder.`);
  try {
    await mkdir(path.dirname(target), { recursive: true });
    const kept = await lstat(target).catch(() => null);
    if (kept?.isDirectory()) throw new KilnError('CONFLICT', `${JSON.stringify(user_path)} is a folder.`);
    const mode = kept?.isFile() ? kept.mode & 0o777 : 0o644;
    const neighbour = path.join(path.dirname(target), `.kiln-${randomBytes(6).toString('hex')}`);
    const { O_WRONLY, O_CREAT, O_EXCL } = constants;
    const file = await openInside(
      real_root,
      path.relative(real_root, neighbour),
      O_WRONLY | O_CREAT | O_EXCL,
      mode,
    );
    try {
      await file.writeFile(bytes);
      await file.close();
      await rename(neighbour, target);
    } catch (error) {
      await file.close().catch(() => {});
      await rm(neighbour, { force: true });
      throw error;
    }
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOTDIR' || code === 'EEXIST')
      throw new KilnError('CONFLICT', `A part of ${JSON.stringify(user_path)} is a file, not a folder.`);
    throw error;
  }
  return shown(real_root, target);
}

async function writeOne(call: AnyCall, sandbox_id: string, at: string, bytes: Buffer): Promise<Reply> {
  const path_shown = await write(await workspaceOf(call, sandbox_id), at, bytes);
  return reply({ path: path_shown, size: bytes.length, size_bytes: bytes.length }, 201);
}

async function writeMany(
  call: AnyCall,
  sandbox_id: string,
  files: { path: string; content_base64?: string | null; content?: string | null }[],
): Promise<Reply> {
  const root = await workspaceOf(call, sandbox_id);
  const written: { path: string; size_bytes: number }[] = [];
  const failed: { path: string; error: string }[] = [];
  for (const file of files)
    try {
      const bytes = decode(
        file.content_base64 ?? file.content ?? '',
        'content_base64',
        call.deps.limits.file_bytes,
      );
      written.push({ path: await write(root, file.path, bytes), size_bytes: bytes.length });
    } catch (error) {
      if (!(error instanceof KilnError)) throw error;
      failed.push({ path: file.path, error: error.message });
    }
  return reply({ written, failed });
}

interface Seen {
  name: string;
  real: string;
  size: number;
  is_dir: boolean;
  modified_at: string;
}

/** Entries by name; links are shown as what they are (neither followed nor counted as folders). */
async function readFolder(real: string): Promise<Seen[]> {
  const names = (await readdir(real)).sort();
  const seen = await Promise.all(
    names.slice(0, ENTRIES + 1).map(async (name) => {
      const at = path.join(real, name);
      const stats = await lstat(at).catch(() => null);
      return (
        stats && {
          name,
          real: at,
          size: stats.size,
          is_dir: stats.isDirectory(),
          modified_at: stats.mtime.toISOString(),
        }
      );
    }),
  );
  return seen.filter((entry) => entry !== null);
}

async function list(
  call: AnyCall,
  sandbox_id: string,
  query: { path?: string; depth?: number },
): Promise<Reply> {
  const root = await resolveInside(await workspaceOf(call, sandbox_id), '.');
  const asked = query.path ?? WORKSPACE;
  const folder = await resolveInside(root, asked);
  const entries: { name: string; path: string; size: number; is_dir: boolean; modified_at: string }[] = [];
  let truncated = false;
  const visit = async (at: string, depth: number): Promise<void> => {
    for (const { real, ...entry } of await readFolder(at)) {
      if (entries.length >= ENTRIES) {
        truncated = true;
        return;
      }
      entries.push({ ...entry, path: shown(root, real) });
      if (entry.is_dir && depth > 1) await visit(real, depth - 1).catch(() => {});
    }
  };
  await visit(folder, query.depth ?? 1).catch((error) => gone(asked, error));
  return reply({ path: shown(root, folder), entries, truncated });
}

async function tree(
  call: AnyCall,
  sandbox_id: string,
  query: { path?: string; depth?: number },
): Promise<Reply> {
  const root = await resolveInside(await workspaceOf(call, sandbox_id), '.');
  const asked = query.path ?? WORKSPACE;
  let left = ENTRIES;
  const node = async (real: string, depth: number): Promise<contract.TreeNode> => {
    const stats = await lstat(real);
    const is_dir = stats.isDirectory();
    const children: contract.TreeNode[] = [];
    if (is_dir && depth > 0)
      for (const entry of await readFolder(real)) {
        if (left-- <= 0) break;
        const child = await node(entry.real, depth - 1).catch(() => null);
        if (child) children.push(child);
      }
    return {
      path: shown(root, real),
      name: real === root ? 'workspace' : path.basename(real),
      type: is_dir ? 'dir' : 'file',
      size: stats.size,
      modified_at: stats.mtime.toISOString(),
      ...(is_dir ? { children } : {}),
    };
  };
  const real = await resolveInside(root, asked);
  return reply(await node(real, query.depth ?? 3).catch((error) => gone(asked, error)));
}

async function stat(call: AnyCall, sandbox_id: string, user_path: string): Promise<Reply> {
  const root = await resolveInside(await workspaceOf(call, sandbox_id), '.');
  const real = await resolveInside(root, user_path);
  const stats = await lstat(real).catch((error) => gone(user_path, error));
  return reply({
    path: shown(root, real),
    size: stats.size,
    is_dir: stats.isDirectory(),
    mode: stats.mode & 0o7777,
    modified_at: stats.mtime.toISOString(),
  });
}

/** A whole file, of at most `file_bytes`; anything but a plain file is refused. */
async function read(
  call: AnyCall,
  sandbox_id: string,
  user_path: string,
): Promise<{ path: string; bytes: Buffer }> {
  const root = await resolveInside(await workspaceOf(call, sandbox_id), '.');
  const real = await resolveInside(root, user_path);
  const file = await openInside(root, user_path, constants.O_RDONLY).catch((error) =>
    error instanceof KilnError ? Promise.reject(error) : gone(user_path, error),
  );
  try {
    const stats = await file.stat();
    if (!stats.isFile()) throw new KilnError('CONFLICT', `${JSON.stringify(user_path)} is not a plain file.`);
    if (stats.size > call.deps.limits.file_bytes) throw tooLarge(call.deps.limits.file_bytes);
    return { path: shown(root, real), bytes: await file.readFile() };
  } finally {
    await file.close();
  }
}

/** Callers that encode the slashes, or put a JSON content type on a GET, read JSON; the others read bytes. */
async function download(call: AnyCall, sandbox_id: string, given: string): Promise<Reply | Response> {
  // The protocol strips the leading slash from `/workspace/a`.
  const user_path = given === 'workspace' || given.startsWith('workspace/') ? `/${given}` : given;
  const { path: real, bytes } = await read(call, sandbox_id, user_path);
  const encoded = /%2f/i.test(new URL(call.request.url).pathname);
  if (encoded || (call.request.headers.get('content-type') ?? '').includes('json'))
    return reply({ data: { path: real, content: bytes.toString('base64'), size: bytes.length } });
  return plainBytes(bytes);
}

/** Never a type a browser would run: this is the API's own origin. */
function plainBytes(bytes: Buffer): Response {
  return new Response(new Uint8Array(bytes), {
    headers: {
      'content-type': 'application/octet-stream',
      'content-length': String(bytes.length),
      'x-content-type-options': 'nosniff',
    },
  });
}

async function readText(call: AnyCall, sandbox_id: string, user_path: string): Promise<Reply> {
  const { path: real, bytes } = await read(call, sandbox_id, user_path);
  const text = bytes.toString('utf8');
  const is_text = Buffer.from(text, 'utf8').equals(bytes);
  return reply({
    path: real,
    content: is_text ? text : bytes.toString('base64'),
    encoding: is_text ? 'utf-8' : 'base64',
    size: bytes.length,
  });
}

async function remove(
  call: AnyCall,
  sandbox_id: string,
  user_path: string,
  recursive: boolean,
): Promise<Reply> {
  const root = await resolveInside(await workspaceOf(call, sandbox_id), '.');
  // The last part is not resolved: a link is removed itself, not what it points to.
  const parent = await resolveInside(root, path.posix.dirname(trimmed(user_path)));
  const target = path.join(parent, path.posix.basename(trimmed(user_path)));
  if (target === root || !target.startsWith(`${root}/`))
    throw new KilnError(
      'FORBIDDEN_PATH',
      'The workspace itself cannot be removed; destroy the sandbox instead.',
    );
  const stats = await lstat(target).catch((error) => gone(user_path, error));
  if (!stats.isDirectory()) await rm(target, { force: true });
  else if (recursive) await rm(target, { recursive: true, force: true });
  else
    await rmdir(target).catch((error) => {
      if (error.code !== 'ENOTEMPTY') throw error;
      throw new KilnError(
        'CONFLICT',
        `${JSON.stringify(user_path)} is a folder with files; send recursive=true.`,
      );
    });
  return reply({ path: shown(root, target), deleted: true });
}

/** Without dots and a trailing slash; `.` and `..` at the end must not become a name. */
function trimmed(user_path: string): string {
  const normal = path.posix.normalize(user_path).replace(/(.)\/$/, '$1');
  return normal === '.' || normal === '/' ? WORKSPACE : normal;
}

export const fileHandlers: Mounted[] = [
  handle(contract.writeFile, async (call) => {
    const bytes = decode(call.body.content, 'content', call.deps.limits.file_bytes);
    return writeOne(call, call.params.id, call.body.path, bytes);
  }),
  handle(contract.writeFileNew, async (call) => {
    const { path: at, content, content_base64 } = call.body;
    const { file_bytes } = call.deps.limits;
    if (content_base64 != null)
      return writeOne(call, call.params.id, at, decode(content_base64, 'content_base64', file_bytes));
    const bytes = Buffer.from(content ?? '', 'utf8');
    if (bytes.length > file_bytes) throw tooLarge(file_bytes);
    return writeOne(call, call.params.id, at, bytes);
  }),
  handle(contract.downloadFileNew, async (call) =>
    plainBytes((await read(call, call.params.id, call.query.path)).bytes),
  ),
  handle(contract.statFileNew, (call) => stat(call, call.params.id, call.body.path)),
  handle(contract.writeManyFiles, (call) => writeMany(call, call.params.id, call.body.files)),
  handle(contract.listFiles, (call) => list(call, call.params.id, call.query)),
  handle(contract.listFilesAlias, (call) => list(call, call.params.id, call.query)),
  handle(contract.statFile, (call) => stat(call, call.params.id, call.body.path)),
  handle(contract.treeFiles, (call) => tree(call, call.params.id, call.query)),
  handle(contract.readFileText, (call) => readText(call, call.params.id, call.query.path)),
  handle(contract.downloadFile, (call) => download(call, call.params.id, call.params.path)),
  handle(contract.deleteFile, (call) =>
    remove(call, call.params.id, call.query.path, call.query.recursive === 'true'),
  ),
];
