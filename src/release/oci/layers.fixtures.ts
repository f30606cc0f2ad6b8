/** Small layers, stores and images for tests. */
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import tar from 'tar-stream';
import type { ImageRunConfig } from '../../domain/image.ts';
import { MEDIA_TYPES } from '../../domain/image.ts';
import { fileObjectStore } from '../../store/objects/files.ts';
import type { ObjectStore } from '../../store/objects/port.ts';
import { putBytes, putImage, type StoredImage } from './store.ts';

export type Item = Partial<tar.Header> & { name: string; content?: string };

export function tarOf(items: Item[]): Promise<Buffer> {
  const pack = tar.pack();
  for (const { content, ...header } of items) {
    const type = header.type ?? (header.name.endsWith('/') ? 'directory' : 'file');
    pack.entry({ mtime: new Date(1_600_000_000_000), ...header, type }, content ?? '');
  }
  pack.finalize();
  return buffer(pack);
}

export type Read = {
  type: string;
  content: string;
  link: string;
  mode: number;
  uid: number;
  gid: number;
  mtime_s: number;
  pax: Record<string, string>;
};

/** By name, in the archive's order. */
export async function readTar(bytes: Buffer | Readable): Promise<Map<string, Read>> {
  const read = new Map<string, Read>();
  const extract = tar.extract();
  extract.on('entry', async (header, stream, next) => {
    const content = (await buffer(stream)).toString();
    read.set(header.name, {
      type: header.type!,
      content,
      link: header.linkname ?? '',
      mode: header.mode!,
      uid: header.uid!,
      gid: header.gid!,
      mtime_s: header.mtime!.getTime() / 1000,
      pax: { ...(header.pax as Record<string, string> | null) },
    });
    next();
  });
  const source = Buffer.isBuffer(bytes) ? Readable.from([bytes]) : bytes;
  await new Promise<void>((resolve, reject) => {
    source.on('error', reject);
    extract.on('error', reject).on('finish', resolve);
    source.pipe(extract);
  });
  return read;
}

export interface Place {
  dir: string;
  objects: ObjectStore;
  tmp_dir: string;
  images_dir: string;
  [Symbol.asyncDispose](): Promise<void>;
}

export async function place(): Promise<Place> {
  const dir = await mkdtemp(path.join(tmpdir(), 'kiln-oci-'));
  const tmp_dir = path.join(dir, 'tmp');
  await mkdir(tmp_dir);
  return {
    dir,
    tmp_dir,
    images_dir: path.join(dir, 'images'),
    objects: fileObjectStore(path.join(dir, 'objects')),
    [Symbol.asyncDispose]: () => rm(dir, { recursive: true, force: true }),
  };
}

export const sha256 = (bytes: Uint8Array): string =>
  `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

const CODERS = { gzip: gzipSync, zstd: zstdCompressSync, tar: (bytes: Buffer) => bytes };

/** An image of these layers, in the store. */
export async function imageOf(
  objects: ObjectStore,
  layers: Item[][],
  o: { config?: ImageRunConfig; coding?: keyof typeof CODERS } = {},
): Promise<StoredImage & { tars: Buffer[] }> {
  const coding = o.coding ?? 'gzip';
  const tars = await Promise.all(layers.map(tarOf));
  const stored = [];
  for (const bytes of tars) {
    const { digest, size_bytes } = await putBytes(objects, CODERS[coding](bytes));
    stored.push({ mediaType: MEDIA_TYPES[`layer_${coding}`], digest, size: size_bytes });
  }
  const image = await putImage(objects, {
    config: {
      architecture: 'amd64',
      os: 'linux',
      config: o.config ?? { Env: ['PATH=/usr/bin:/bin', 'LANG=C'] },
      rootfs: { type: 'layers', diff_ids: tars.map(sha256) },
    },
    layers: stored,
  });
  return { ...image, tars };
}
