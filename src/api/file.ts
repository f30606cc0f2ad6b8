/** Files of a sandbox. Code in the workspace may be hostile and running: everything is reached through open folders. */
import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { lstat, open, readdir, rename, rm, rmdir, unlink } from 'node:fs/promises';
import path from 'node:path';
import { KilnError } from '../domain/errors.ts';
import { followInside, insideWorkspace, openInside, relativePath, shownPath } from '../source/paths.ts';
import { removeInside } from '../source/remove.ts';
import type { Folders } from '../source/tree.ts';
import { tooLarge } from './body.ts';
import { type AnyCall, handle, type Mounted, type Reply, reply } from './call.ts';
import * as contract from './contract/file.ts';
import { invalidFields } from './errors.ts';
import { usable } from './find.ts';

/** Entries of one listing or tree. */
const ENTRIES = 10_000;

export async function workspaceOf(call: AnyCall, sandbox_id: string): Promise<string> {
  return call.deps.engine.workspaceDir(await usable(call, sandbox_id));
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

/** Whole or not at all: a neighbour is written and renamed over the old one, both in the folder that was opened. */
async function write(root: string, user_path: string, bytes: Buffer): Promise<string> {
  const put = async (folders: Folders): Promise<string> => {
    const target = followInside(folders, user_path);
    if (target === '') throw new KilnError('CONFLICT', `${shownPath('')} itself is a folder.`);
    const at = folders.entry(target);
    const kept = await lstat(at).catch(() => null);
    if (kept?.isDirectory()) throw new KilnError('CONFLICT', `${JSON.stringify(user_path)} is a folder.`);
    const mode = kept?.isFile() ? kept.mode & 0o777 : 0o644;
    const neighbour = path.join(path.dirname(at), `.kiln-${randomBytes(6).toString('hex')}`);
    const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;
    const file = await open(neighbour, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode);
    try {
      await file.writeFile(bytes);
      await file.close();
      await rename(neighbour, at);
    } catch (error) {
      await file.close().catch(() => {});
      await rm(neighbour, { force: true });
      throw error;
    }
    return shownPath(target);
  };
  return insideWorkspace(root, put, { create: true }).catch((error) => {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOTDIR' || code === 'EEXIST' || code === 'EISDIR' || code === 'ELOOP')
      throw new KilnError('CONFLICT', `A part of ${JSON.stringify(user_path)} is a file, not a folder.`);
    if (code === 'ENOENT')
      throw new KilnError('CONFLICT', `A folder of ${JSON.stringify(user_path)} went away; write it again.`);
    throw error;
  });
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
  /** Relative to the workspace. */
  rel: string;
  size: number;
  is_dir: boolean;
  modified_at: string;
}

/** Entries by name; links are shown as what they are (neither followed nor counted as folders). */
async function readFolder(folders: Folders, folder: string): Promise<Seen[]> {
  const at = folders.at(folder);
  const names = (await readdir(at)).sort();
  const seen = await Promise.all(
    names.slice(0, ENTRIES + 1).map(async (name): Promise<Seen | null> => {
      const stats = await lstat(`${at}/${name}`).catch(() => null);
      return (
        stats && {
          name,
          rel: folder === '' ? name : `${folder}/${name}`,
          size: stats.size,
          is_dir: stats.isDirectory(),
          modified_at: stats.mtime.toISOString(),
        }
      );
    }),
  );
  return seen.filter((entry) => entry !== null);
}

/** Work on what a user's path names; what is not there, or has become something else meanwhile, is said so. */
async function at<T>(
  call: AnyCall,
  sandbox_id: string,
  user_path: string,
  work: (folders: Folders, rel: string) => Promise<T>,
): Promise<T> {
  return insideWorkspace(await workspaceOf(call, sandbox_id), (folders) =>
    work(folders, followInside(folders, user_path)),
  ).catch((error) => gone(user_path, error));
}

interface Asked {
  path?: string;
  depth?: number;
}

function list(call: AnyCall, sandbox_id: string, query: Asked): Promise<Reply> {
  return at(call, sandbox_id, query.path ?? shownPath(''), async (folders, folder) => {
    const entries: (Omit<Seen, 'rel'> & { path: string })[] = [];
    let truncated = false;
    const visit = async (below: string, depth: number): Promise<void> => {
      for (const { rel, ...entry } of await readFolder(folders, below)) {
        if (entries.length >= ENTRIES) {
          truncated = true;
          return;
        }
        entries.push({ ...entry, path: shownPath(rel) });
        if (entry.is_dir && depth > 1) await visit(rel, depth - 1).catch(() => {});
      }
    };
    await visit(folder, query.depth ?? 1);
    return reply({ path: shownPath(folder), entries, truncated });
  });
}

function tree(call: AnyCall, sandbox_id: string, query: Asked): Promise<Reply> {
  return at(call, sandbox_id, query.path ?? shownPath(''), async (folders, top) => {
    let left = ENTRIES;
    const node = async (of: Omit<Seen, 'name'>, depth: number): Promise<contract.TreeNode> => {
      const { rel, is_dir, size, modified_at } = of;
      const children: contract.TreeNode[] = [];
      if (is_dir && depth > 0)
        for (const entry of await readFolder(folders, rel)) {
          if (left-- <= 0) break;
          const child = await node(entry, depth - 1).catch(() => null);
          if (child) children.push(child);
        }
      return {
        path: shownPath(rel),
        name: path.basename(shownPath(rel)),
        type: is_dir ? 'dir' : 'file',
        size,
        modified_at,
        ...(is_dir ? { children } : {}),
      };
    };
    const stats = await lstat(folders.entry(top));
    const modified_at = stats.mtime.toISOString();
    const seen = { rel: top, is_dir: stats.isDirectory(), size: stats.size, modified_at };
    return reply(await node(seen, query.depth ?? 3));
  });
}

function stat(call: AnyCall, sandbox_id: string, user_path: string): Promise<Reply> {
  return at(call, sandbox_id, user_path, async (folders, rel) => {
    const stats = await lstat(folders.entry(rel));
    return reply({
      path: shownPath(rel),
      size: stats.size,
      is_dir: stats.isDirectory(),
      mode: stats.mode & 0o7777,
      modified_at: stats.mtime.toISOString(),
    });
  });
}

/** A whole file, of at most `file_bytes`; anything but a plain file is refused. */
function read(
  call: AnyCall,
  sandbox_id: string,
  user_path: string,
): Promise<{ path: string; bytes: Buffer }> {
  return at(call, sandbox_id, user_path, async (folders, rel) => {
    const file = await openInside(folders, shownPath(rel), constants.O_RDONLY);
    try {
      const stats = await file.stat();
      if (!stats.isFile())
        throw new KilnError('CONFLICT', `${JSON.stringify(user_path)} is not a plain file.`);
      if (stats.size > call.deps.limits.file_bytes) throw tooLarge(call.deps.limits.file_bytes);
      return { path: shownPath(rel), bytes: await file.readFile() };
    } finally {
      await file.close();
    }
  });
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
  const relative = relativePath(user_path);
  if (relative === '')
    throw new KilnError(
      'FORBIDDEN_PATH',
      'The workspace itself cannot be removed; destroy the sandbox instead.',
    );
  // The last part is not followed: a link is removed itself, not what it points to.
  const parent = path.posix.dirname(relative);
  return insideWorkspace(await workspaceOf(call, sandbox_id), async (folders) => {
    const target = path.posix.join(followInside(folders, parent), path.posix.basename(relative));
    await removeEntry(folders, target, recursive);
    return reply({ path: shownPath(target), deleted: true });
  }).catch((error) => gone(user_path, error));
}

async function removeEntry(folders: Folders, target: string, recursive: boolean): Promise<void> {
  const at = folders.entry(target);
  if (!(await lstat(at)).isDirectory()) return unlink(at);
  if (recursive) return removeInside(folders, target);
  await rmdir(at).catch((error) => {
    if (error.code !== 'ENOTEMPTY') throw error;
    throw new KilnError(
      'CONFLICT',
      `${JSON.stringify(shownPath(target))} is a folder with files; send recursive=true.`,
    );
  });
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
