import { realpathSync, statSync } from 'node:fs';
import type { Compression } from './lanes.ts';
import { sortByBytes } from './listing.ts';
import { surveyTree } from './survey.ts';
import { writeTarFile } from './tar-file.ts';
import type { TarSummary, TarTask } from './tar-writer.ts';
import { KIND, ROW, TarTooLarge } from './tree.ts';
import { realRoot } from './walk.ts';

/** The pack would be over its limit. `size_bytes` is the tar's size as far as it was known. */
export class ArtifactTooLarge extends Error {
  readonly size_bytes: number;
  readonly max_bytes: number;
  constructor(size_bytes: number, max_bytes: number) {
    super(`the artifact is ${size_bytes} bytes, the limit is ${max_bytes}`);
    this.name = 'ArtifactTooLarge';
    this.size_bytes = size_bytes;
    this.max_bytes = max_bytes;
  }
}

export { TreeUnreadable } from './tree.ts';

export interface PackOptions {
  root: string;
  /** Put before every path of the tree: '' or 'workspace/'. */
  prefix: string;
  /** Files beside the tree, by full path in the archive (the prefix is not added). They win over files of the tree. */
  extra?: { path: string; content: Buffer; mode?: number }[];
  exclude?: (rel: string, is_dir: boolean) => boolean;
  /**
   * Links to files that are packed become copies of them; every other link (out of the tree, to a folder, to
   * something excluded, broken) is left out and named in `skipped`, with the reason. For content served to the public.
   */
  dereference_inside?: boolean;
  /** Must not exist; gone again when packing fails. */
  out_path: string;
  compress: Compression;
  /** Of the uncompressed tar. */
  max_bytes: number;
  signal?: AbortSignal;
}

export interface Packed {
  /** Of the uncompressed tar. */
  sha256: string;
  /** Of the uncompressed tar. */
  size_bytes: number;
  /** Sum of the contents. */
  file_bytes: number;
  /** Of the file at `out_path`. */
  stored_bytes: number;
  /** Files and links. */
  files: number;
  /** Where each regular file's content lies in the uncompressed tar; keys are paths without the prefix. */
  index: Record<string, { offset: number; size: number; sha256: string }>;
  /** Links that were left out, each as 'path: why'. */
  skipped: string[];
}

const MAX_ENTRIES = 1_000_000;

/**
 * Packs a tree as a canonical tar: the same content gives the same bytes, whatever the machine, times or owners.
 * @throws ArtifactTooLarge; TreeUnreadable for a path that cannot be read or never settles; KilnError
 * SOURCE_TOO_LARGE over a million entries; ENOSPC and the like as the file system says them
 */
export async function packTree(o: PackOptions): Promise<Packed> {
  const root = realRoot(o.root);
  const skipped: string[] = [];
  const prepare = async () => {
    skipped.length = 0;
    const listing = await surveyTree(root, o.exclude ?? (() => false), MAX_ENTRIES);
    const copies = o.dereference_inside ? dereference(root, listing, skipped) : new Map<string, string>();
    const { prefix, max_bytes } = o;
    return { root, prefix, ...listing, copies, extra: sortExtra(o.extra ?? []), want_index: true, max_bytes };
  };
  try {
    const tar = await writeTarFile({ prepare, path: o.out_path, compress: o.compress, signal: o.signal });
    const { sha256, size_bytes, file_bytes, stored_bytes, files } = tar;
    return { sha256, size_bytes, file_bytes, stored_bytes, files, index: indexOf(tar, o.prefix), skipped };
  } catch (error) {
    throw error instanceof TarTooLarge ? new ArtifactTooLarge(error.size_bytes, error.max_bytes) : error;
  }
}

/**
 * Gives links to packed files the rows of those files and says whose content they get; other links lose their kind.
 * Asking for "packed" instead of "inside" keeps a link from publishing what was excluded.
 */
function dereference(
  root: string,
  listing: { paths: string[]; rows: Float64Array },
  skipped: string[],
): Map<string, string> {
  const { paths, rows } = listing;
  const copies = new Map<string, string>();
  const files = new Map<string, number>();
  paths.forEach((path, i) => {
    if (rows[i * ROW.width + ROW.kind] === KIND.file) files.set(path, i);
  });
  paths.forEach((path, i) => {
    if (rows[i * ROW.width + ROW.kind] !== KIND.symlink) return;
    const { target, why } = targetInside(root, path);
    const of = target === null ? undefined : files.get(target);
    if (target === null || of === undefined) {
      rows[i * ROW.width + ROW.kind] = KIND.gone;
      skipped.push(`${path}: ${why}`);
      return;
    }
    rows.copyWithin(i * ROW.width, of * ROW.width, (of + 1) * ROW.width);
    copies.set(path, target);
  });
  return copies;
}

/** `why` is the reason when nothing that is packed is there. */
function targetInside(root: string, path: string): { target: string | null; why: string } {
  try {
    const target = realpathSync(`${root}/${path}`);
    if (!target.startsWith(`${root}/`) && target !== root)
      return { target: null, why: 'the link leaves the output folder' };
    const is_folder = statSync(target, { throwIfNoEntry: false })?.isDirectory() ?? false;
    return {
      target: target.slice(root.length + 1),
      why: is_folder ? 'links to folders are not followed' : 'what it links to is left out',
    };
  } catch {
    return { target: null, why: 'the link leads nowhere' };
  }
}

function sortExtra(extra: NonNullable<PackOptions['extra']>): TarTask['extra'] {
  const by_path = new Map(extra.map((file) => [file.path, file]));
  return sortByBytes([...by_path.keys()]).map((path) => {
    const { content, mode = 0o644 } = by_path.get(path)!;
    return { path, content, executable: (mode & 0o100) !== 0 };
  });
}

function indexOf(tar: TarSummary, prefix: string): Packed['index'] {
  // No prototype: a file may be called __proto__.
  const index: Packed['index'] = Object.create(null);
  for (const { name, offset, size, sha256 } of tar.index) {
    index[name.startsWith(prefix) ? name.slice(prefix.length) : name] = { offset, size, sha256 };
  }
  return index;
}
