/**
 * A small stored snapshot, read into memory instead of being laid out on disk. For a site that is served as it is,
 * making and removing a thousand files costs more than everything else of the publish (measured: 130 to 700 ms of
 * 300 to 900, by file system), and nobody would ever look at them.
 */
import { createHash, hash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import type { Readable } from 'node:stream';
import { DigestMismatch } from './extract.ts';
import { ArtifactTooLarge, type Packed } from './pack.ts';
import { END_BYTES, encodeHeader, paddedSize } from './tar-format.ts';
import { type TarEntry, TarReader } from './tar-reader.ts';
import { zstdDecoded } from './zstd.ts';

export interface SmallFile {
  content: Buffer;
  executable: boolean;
}

/** Folders map to null. In the order of the tar, which is the canonical one. */
export type SmallTree = ReadonlyMap<string, SmallFile | null>;

/**
 * Reads a snapshot of Kiln's own making (zstd). Null when it holds links, which only a real folder can resolve.
 * @throws DigestMismatch; what the stream throws
 */
export async function readSmallTree(input: Readable, expect_sha256: string): Promise<SmallTree | null> {
  const tree = new Map<string, SmallFile | null>();
  let plain = true;
  let parts: Buffer[] = [];
  let current: TarEntry | null = null;
  const reader = new TarReader({
    entry(entry) {
      current = entry;
      parts = [];
      if (entry.type === 'dir') tree.set(entry.name.replace(/\/$/, ''), null);
      else if (entry.type !== 'file') plain = false;
    },
    data: (piece) => void parts.push(Buffer.from(piece)),
    entryEnd() {
      if (current?.type === 'file')
        tree.set(current.name, { content: Buffer.concat(parts), executable: (current.mode & 0o100) !== 0 });
    },
  });
  const digest = createHash('sha256');
  try {
    for await (const piece of zstdDecoded(input)) {
      digest.update(piece as Buffer);
      reader.push(piece as Buffer);
    }
    reader.finish();
  } catch (error) {
    if (input.errored) throw input.errored;
    throw new DigestMismatch(expect_sha256, null, error);
  }
  const sha256 = digest.digest('hex');
  if (sha256 !== expect_sha256) throw new DigestMismatch(expect_sha256, sha256);
  return plain ? tree : null;
}

/**
 * The same bytes that `packTree` makes of the same files (without compression and prefix): a test holds the two
 * together. @throws ArtifactTooLarge
 */
export async function packSmallTree(o: {
  tree: SmallTree;
  /** Folder that is packed, '.' for everything; null is returned when there is no such folder. */
  root: string;
  exclude: (rel: string, is_dir: boolean) => boolean;
  out_path: string;
  max_bytes: number;
}): Promise<Packed | null> {
  if (o.root !== '.' && o.tree.get(o.root) !== null) return null;
  const blocks: Buffer[] = [];
  const index: Packed['index'] = Object.create(null);
  const left_out = new Set<string>();
  let position = 0;
  let file_bytes = 0;
  const write = (block: Buffer) => {
    blocks.push(block);
    position += block.length;
  };
  const prefix = o.root === '.' ? '' : `${o.root}/`;
  for (const [path, file] of o.tree) {
    if (!path.startsWith(prefix)) continue;
    const name = path.slice(prefix.length);
    const parent = name.slice(0, Math.max(0, name.lastIndexOf('/')));
    if (left_out.has(parent) || o.exclude(name, file === null)) {
      left_out.add(name);
      continue;
    }
    const size = file?.content.length ?? 0;
    write(encodeHeader(file === null ? 'dir' : file.executable ? 'executable' : 'file', name, size));
    if (file === null) continue;
    index[name] = { offset: position, size, sha256: hash('sha256', file.content, 'hex') };
    write(file.content);
    if (paddedSize(size) > size) write(Buffer.alloc(paddedSize(size) - size));
    file_bytes += size;
    if (position + END_BYTES > o.max_bytes) throw new ArtifactTooLarge(position + END_BYTES, o.max_bytes);
  }
  write(Buffer.alloc(END_BYTES));
  const tar = Buffer.concat(blocks);
  await writeFile(o.out_path, tar, { flag: 'wx' });
  return {
    sha256: hash('sha256', tar, 'hex'),
    size_bytes: tar.length,
    file_bytes,
    stored_bytes: tar.length,
    files: Object.keys(index).length,
    index,
    skipped: [],
  };
}
