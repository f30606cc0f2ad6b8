/**
 * Release artifacts, both canonical tars named by the SHA-256 of their uncompressed bytes:
 *
 *   static   releases/<sha256>.tar         uncompressed, so that the edge can read ranges of it, with
 *            releases/<sha256>.index.json  mapping each path to its bytes
 *   rootfs   releases/<sha256>.tar.zst     `workspace/…` as the build left it, and `kiln/release.json`: how to run it
 *
 * Images (oci/) are the third kind: a manifest and the blobs it names, under blobs/sha256/<hex>.
 */
import { readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { Readable } from 'node:stream';
import { KilnError } from '../domain/errors.ts';
import type { ArtifactKind, ArtifactManifest } from '../domain/release.ts';
import { extractTar } from '../source/extract.ts';
import { type Packed, packTree } from '../source/pack.ts';
import { packSmallTree, type SmallTree } from '../source/small-tree.ts';
import type { ObjectStore } from '../store/objects/port.ts';

export interface Artifact {
  kind: ArtifactKind;
  sha256: string;
  object_key: string;
  stored_bytes: number;
  manifest: ArtifactManifest;
  /** Every object this artifact consists of, for the books of retention. */
  objects: { key: string; kind: 'release' | 'index' | 'blob'; size_bytes: number }[];
  /** Links that were left out, each as 'path: why'. */
  skipped: string[];
}

/** How a rootfs release is run; stored inside it, so that the bytes alone say it. */
export interface ReleaseJson {
  command: string;
  cwd: string;
  port: number | null;
  env: Record<string, string>;
  base: string;
}

interface Packing {
  root: string;
  objects: ObjectStore;
  tmp_dir: string;
  /** Unique name for the temporary files. */
  name: string;
  max_bytes: number;
  signal?: AbortSignal;
}

/** Rejects with ArtifactTooLarge (source/pack.ts). */
export async function packStatic(of: Packing): Promise<Artifact> {
  const { root, max_bytes, signal } = of;
  return storeStatic(of, (out_path) =>
    packTree({
      root,
      prefix: '',
      exclude: neverServed,
      dereference_inside: true,
      out_path,
      compress: 'none',
      max_bytes,
      ...(signal ? { signal } : {}),
    }),
  );
}

/** The same of a snapshot in memory; `root` is a path in it. Null when there is no such folder. */
export async function packSmallStatic(of: Packing & { tree: SmallTree }): Promise<Artifact | null> {
  const { tree, root, max_bytes } = of;
  return storeStatic(of, (out_path) =>
    packSmallTree({ tree, root, exclude: neverServed, out_path, max_bytes }),
  );
}

async function storeStatic<P extends Packed | null>(
  of: Packing,
  pack: (out_path: string) => Promise<P>,
): Promise<Artifact | Extract<P, null>> {
  const out_path = path.join(of.tmp_dir, `${of.name}.tar`);
  try {
    const packed = await pack(out_path);
    if (packed === null) return null as Extract<P, null>;
    const object_key = `releases/${packed.sha256}.tar`;
    const index_key = `releases/${packed.sha256}.index.json`;
    const index = Buffer.from(JSON.stringify({ files: packed.index }));
    const [stored, stored_index] = await Promise.all([
      of.objects.putFile(object_key, out_path),
      of.objects.put(index_key, Readable.from([index])),
    ]);
    return {
      kind: 'static',
      sha256: packed.sha256,
      object_key,
      stored_bytes: stored.size_bytes,
      manifest: {
        files: packed.files,
        total_bytes: packed.file_bytes,
        entrypoint: 'index.html' in packed.index ? 'index.html' : null,
        index_key,
      },
      objects: [
        { key: object_key, kind: 'release', size_bytes: stored.size_bytes },
        { key: index_key, kind: 'index', size_bytes: stored_index.size_bytes },
      ],
      skipped: packed.skipped,
    };
  } finally {
    await rm(out_path, { force: true });
  }
}

/** Rejects with ArtifactTooLarge (source/pack.ts). */
export async function packRootfs(of: Packing & { release: ReleaseJson }): Promise<Artifact> {
  const out_path = path.join(of.tmp_dir, `${of.name}.tar.zst`);
  try {
    const packed = await packTree({
      root: of.root,
      prefix: 'workspace/',
      extra: [
        { path: 'kiln/release.json', content: Buffer.from(`${JSON.stringify(of.release, null, 2)}\n`) },
      ],
      exclude: neverRun,
      out_path,
      compress: 'zstd',
      max_bytes: of.max_bytes,
      ...(of.signal ? { signal: of.signal } : {}),
    });
    const object_key = `releases/${packed.sha256}.tar.zst`;
    const stored = await of.objects.putFile(object_key, out_path);
    return {
      kind: 'rootfs',
      sha256: packed.sha256,
      object_key,
      stored_bytes: stored.size_bytes,
      manifest: {
        files: packed.files,
        total_bytes: packed.file_bytes,
        entrypoint: null,
        base: of.release.base,
        workdir: of.release.cwd,
      },
      objects: [{ key: object_key, kind: 'release', size_bytes: stored.size_bytes }],
      skipped: packed.skipped,
    };
  } finally {
    await rm(out_path, { force: true });
  }
}

/**
 * Lays a rootfs release out under `into` (giving `into/workspace` and `into/kiln`), verifying its digest on the way.
 * `sha256` is what the release row says.
 */
export async function unpackRootfs(
  objects: ObjectStore,
  of: { object_key: string; sha256: string; into: string; max_bytes: number; max_files: number },
): Promise<ReleaseJson> {
  await extractTar({
    input: await objects.get(of.object_key),
    into: of.into,
    limits: { max_bytes: of.max_bytes, max_files: of.max_files },
    expect_sha256: of.sha256,
  });
  const file = path.join(of.into, 'kiln', 'release.json');
  try {
    return JSON.parse(await readFile(file, 'utf8')) as ReleaseJson;
  } catch (cause) {
    throw new KilnError('STORAGE_FAILED', `The release ${of.sha256} has no readable kiln/release.json.`, {
      cause,
    });
  }
}

const WELL_KNOWN = '.well-known';

/** Dot files and package folders never belong on a web site, whatever the output folder is. */
function neverServed(rel: string, is_dir: boolean): boolean {
  const name = path.posix.basename(rel);
  if (name.startsWith('.') && name !== WELL_KNOWN) return true;
  return is_dir ? name === 'node_modules' : name === 'kiln.toml' || name === 'kiln.json';
}

/** Caches that a build leaves and no instance reads; they would make equal releases differ (I11). */
export function neverRun(rel: string, is_dir: boolean): boolean {
  if (!is_dir) return rel.endsWith('.pyc');
  const name = path.posix.basename(rel);
  return (
    name === '.git' ||
    name === '__pycache__' ||
    rel.endsWith('node_modules/.cache') ||
    rel.endsWith('.next/cache') ||
    rel.endsWith('.kiln/tools')
  );
}
