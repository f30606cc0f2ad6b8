/**
 * Brings the sandbox of a folder up to date: the manifest (content hashes, remembered between calls) goes to the
 * engine, which removes what is gone and says what it lacks; only that is uploaded.
 */
import { createHash } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';
import type { SandboxView } from '../../api/contract/sandbox.ts';
import { diskFiles } from '../../build/files.ts';
import { makePlan } from '../../build/plan.ts';
import { readConfig } from '../../config.ts';
import { slugify } from '../../domain/slug.ts';
import { type ManifestEntry, packPaths, readManifest } from '../../source/manifest.ts';
import { surveySource } from '../../source/survey.ts';
import type { Cli } from '../cli.ts';
import type { Client } from '../client.ts';
import { badInput, CliError } from '../exit.ts';
import { formatBytes, plural } from '../output.ts';
import type { Progress } from '../progress.ts';
import type { PublishRequest } from './publish-folder.ts';

/** One upload holds at most this much, so that a broken connection costs little. */
const UPLOAD_BYTES = 128 * 1024 * 1024;
const UPLOAD_ENTRIES = 20_000;
/** The server reads its side of the workspace to compare. */
const SYNC_TIMEOUT_MS = 10 * 60_000;

export interface Sync {
  cli: Cli;
  client: Client;
  sandbox: SandboxView;
  /** Real path. */
  folder: string;
  request: PublishRequest;
  progress: Progress;
}

/** `secrets_left_out` are files that look like secrets and therefore stay here. */
export async function syncFolder(of: Sync): Promise<{ secrets_left_out: string[] }> {
  const { client, folder, sandbox, progress } = of;
  progress.begin('upload');
  const local = await readLocal(of);
  if (local.manifest.length === 0) throw badInput(`There is nothing to publish in ${folder}.`);
  const { missing } = await client.post('/sandboxes/{id}/sync', {
    params: { id: sandbox.id },
    body: { manifest: local.manifest },
    timeout_ms: SYNC_TIMEOUT_MS,
  });
  // A path the manifest does not have is never sent, whoever asks for it: it could be a secret.
  const asked = new Set(missing);
  const entries = local.manifest.filter((entry) => asked.has(entry.path));
  const total = plural(local.manifest.filter((entry) => entry.type !== 'dir').length, 'file');
  let sent_bytes = 0;
  for (const part of partsOf(entries)) {
    progress.detail(`${formatBytes(sent_bytes)} of ${formatBytes(bytesOf(entries))}`);
    await client.put('/sandboxes/{id}/archive', {
      params: { id: sandbox.id },
      raw: () => Readable.toWeb(packPaths(folder, pathsOf(part))) as ReadableStream<Uint8Array>,
    });
    sent_bytes += bytesOf(part);
  }
  const changed = entries.filter((entry) => entry.type !== 'dir').length;
  const note =
    entries.length === 0 ? `${total}, nothing changed` : `${changed} of ${total}, ${formatBytes(sent_bytes)}`;
  progress.end('upload', { ok: true, duration_ms: null, note });
  return { secrets_left_out: local.secrets_left_out };
}

/** What a snapshot of this folder would hold (pipeline/1-snapshot.ts decides the same way), and the secrets it would not. */
async function readLocal(of: Sync): Promise<{ manifest: ManifestEntry[]; secrets_left_out: string[] }> {
  const { cli, client, folder, request } = of;
  const { overrides, include_git } = request;
  const planned = makePlan(diskFiles(folder), { overrides });
  const rules = {
    output_path: overrides.output_path ?? null,
    include_git,
    keep_outputs: planned.ok && planned.plan.kind === 'static' && planned.plan.build.length === 0,
  };
  const limits = readConfig(cli.env).limits.source;
  const cache_file = await cacheFile(cli, client, sandboxName(folder));
  const [manifest, survey] = await Promise.all([
    readManifest(folder, { ...rules, limits, cache_file }),
    surveySource(folder, rules, limits.max_files),
  ]);
  return { manifest, secrets_left_out: survey.secrets_left_out };
}

/** One sandbox per folder and machine. */
export function sandboxName(folder: string): string {
  const digest = createHash('sha256').update(`${os.hostname()}\0${folder}`).digest('hex').slice(0, 10);
  return `${slugify(path.basename(folder), 'app')}-${digest}`;
}

/** The folder's sandbox, made when there is none. */
export async function ensureSandbox(client: Client, folder: string): Promise<SandboxView> {
  const name = sandboxName(folder);
  const find = () => client.find('/sandboxes/by-name/{name}', { params: { name } });
  const found = await find();
  if (found) return found;
  try {
    const body = { name, metadata: { folder, host: os.hostname() } };
    return await client.post('/sandboxes', { body });
  } catch (error) {
    // Another publish of this folder made it just now.
    const made = error instanceof CliError && error.code === 'CONFLICT' ? await find() : null;
    if (made) return made;
    throw error;
  }
}

/** In the data folder of a local engine, else in the user's cache. Null when neither can be written: everything is read. */
async function cacheFile(cli: Cli, client: Client, name: string): Promise<string | null> {
  const { local, data_dir } = client.connection;
  const own = cli.env.XDG_CACHE_HOME || path.join(os.homedir(), '.cache');
  const folder = local ? path.join(data_dir, 'cache', 'manifests') : path.join(own, 'kiln', 'manifests');
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    return path.join(folder, `${name}.json`);
  } catch {
    return null;
  }
}

function* partsOf(entries: ManifestEntry[]): Generator<ManifestEntry[]> {
  let part: ManifestEntry[] = [];
  let size = 0;
  for (const entry of entries) {
    if (part.length >= UPLOAD_ENTRIES || (part.length > 0 && size + entry.size > UPLOAD_BYTES)) {
      yield part;
      part = [];
      size = 0;
    }
    part.push(entry);
    size += entry.size;
  }
  if (part.length > 0) yield part;
}

function pathsOf(entries: ManifestEntry[]): string[] {
  return entries.map((entry) => entry.path);
}

function bytesOf(entries: ManifestEntry[]): number {
  return entries.reduce((sum, entry) => sum + entry.size, 0);
}
