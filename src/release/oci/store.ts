/**
 * Images in the object store: blobs under `blobs/sha256/<hex>`, the digest being that of the bytes as stored. A manifest
 * is put last, so that one that is there has its configuration and its layers.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { KilnError } from '../../domain/errors.ts';
import type { Descriptor, ImageConfig, ImageManifest } from '../../domain/image.ts';
import { MEDIA_TYPES } from '../../domain/image.ts';
import type { ObjectStore } from '../../store/objects/port.ts';
import { digestOf, hexOf, invalidImage, MAX_DOCUMENT_BYTES, parseConfig, parseManifest } from './manifest.ts';

export interface StoredBlob {
  digest: string;
  size_bytes: number;
}

export function blobKey(digest: string): string {
  return `blobs/sha256/${hexOf(digest)}`;
}

export async function hasBlob(
  objects: ObjectStore,
  of: Pick<Descriptor, 'digest' | 'size'>,
): Promise<boolean> {
  const info = await objects.head(blobKey(of.digest));
  return info?.size_bytes === of.size;
}

/** Bytes that turned out not to be what their digest says. */
export class BlobMismatch extends KilnError {
  constructor(digest: string, found: string) {
    super(
      'STORAGE_FAILED',
      `The blob ${short(digest)} is corrupt: ${found}. Publish or pull the image again.`,
    );
    this.name = 'BlobMismatch';
  }
}

/** Stores a stream whose digest is known beforehand: nothing is stored unless it is right. */
export async function putBlob(
  objects: ObjectStore,
  body: AsyncIterable<Uint8Array>,
  expected: Pick<Descriptor, 'digest' | 'size'>,
): Promise<StoredBlob> {
  const key = blobKey(expected.digest);
  const { size_bytes, existed } = await objects.put(key, checked(body, expected));
  if (existed && body instanceof Readable) body.destroy();
  if (size_bytes !== expected.size)
    throw new BlobMismatch(expected.digest, `it has ${size_bytes} bytes instead of ${expected.size}`);
  return { digest: expected.digest, size_bytes };
}

export async function putBytes(objects: ObjectStore, bytes: Uint8Array): Promise<StoredBlob> {
  const digest = digestOf(bytes);
  return putBlob(objects, Readable.from([bytes]), { digest, size: bytes.length });
}

/** Moves a finished file into the store under its digest, which is computed unless somebody has just done so. */
export async function putBlobFile(objects: ObjectStore, path: string, known?: string): Promise<StoredBlob> {
  const digest = known ?? (await digestOfFile(path));
  const { size_bytes } = await objects.putFile(blobKey(digest), path);
  return { digest, size_bytes };
}

export async function digestOfFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024 })) hash.update(chunk);
  return `sha256:${hash.digest('hex')}`;
}

/** The stream fails at its end when the bytes are not those of the digest. */
export async function getBlob(
  objects: ObjectStore,
  of: Pick<Descriptor, 'digest' | 'size'>,
): Promise<Readable> {
  const stored = await objects.get(blobKey(of.digest));
  const verified = Readable.from(checked(stored, of), { objectMode: false, highWaterMark: 256 * 1024 });
  // Whoever stops reading early must not leave the file open.
  verified.once('close', () => stored.destroy());
  return verified;
}

/** A small blob (manifest, configuration), whole and verified. */
export async function getDocument(objects: ObjectStore, digest: string): Promise<Buffer> {
  const info = await objects.head(blobKey(digest));
  if (info && info.size_bytes > MAX_DOCUMENT_BYTES)
    throw invalidImage(
      `The blob ${short(digest)} has ${info.size_bytes} bytes and is no manifest or configuration`,
    );
  const bytes = await buffer(await objects.get(blobKey(digest)));
  if (digestOf(bytes) !== digest) throw new BlobMismatch(digest, 'its bytes have another digest');
  return bytes;
}

/** Of a layer that Kiln gzipped. */
export function layerDescriptor({ digest, size_bytes }: StoredBlob): Descriptor {
  return { mediaType: MEDIA_TYPES.layer_gzip, digest, size: size_bytes };
}

/** The objects of an image for the books of retention, each once. */
export function objectsOf(blobs: StoredBlob[]): { key: string; size_bytes: number }[] {
  const by_key = new Map(blobs.map(({ digest, size_bytes }) => [blobKey(digest), size_bytes]));
  return [...by_key].map(([key, size_bytes]) => ({ key, size_bytes }));
}

export interface StoredImage {
  digest: string;
  manifest: ImageManifest;
  config: ImageConfig;
}

export async function readImage(objects: ObjectStore, digest: string): Promise<StoredImage> {
  const manifest = parseManifest(await getDocument(objects, digest));
  const config = parseConfig(await getDocument(objects, manifest.config.digest), manifest);
  return { digest, manifest, config };
}

/** Stores configuration and manifest; the layers must be there. With `config_bytes`, the configuration's own bytes stay. */
export async function putImage(
  objects: ObjectStore,
  of: {
    config: ImageConfig;
    config_bytes?: Buffer;
    layers: Descriptor[];
    annotations?: Record<string, string>;
  },
): Promise<StoredImage & { blobs: StoredBlob[] }> {
  const config_bytes = of.config_bytes ?? Buffer.from(JSON.stringify(of.config));
  const config = await putBytes(objects, config_bytes);
  const manifest: ImageManifest = {
    schemaVersion: 2,
    mediaType: MEDIA_TYPES.manifest,
    config: {
      mediaType: MEDIA_TYPES.config,
      digest: config.digest,
      size: config.size_bytes,
    },
    layers: of.layers,
    ...(of.annotations ? { annotations: of.annotations } : {}),
  };
  const bytes = Buffer.from(JSON.stringify(manifest));
  parseConfig(config_bytes, parseManifest(bytes)); // what Kiln writes it must be able to read
  const stored = await putBytes(objects, bytes);
  const layers = of.layers.map(({ digest, size }) => ({ digest, size_bytes: size }));
  return { digest: stored.digest, manifest, config: of.config, blobs: [stored, config, ...layers] };
}

async function* checked(
  body: AsyncIterable<Uint8Array>,
  { digest, size }: Pick<Descriptor, 'digest' | 'size'>,
): AsyncGenerator<Uint8Array> {
  const hash = createHash('sha256');
  let seen = 0;
  for await (const chunk of body) {
    seen += chunk.length;
    if (seen > size) throw new BlobMismatch(digest, `it has more than the ${size} bytes it should have`);
    hash.update(chunk);
    yield chunk;
  }
  if (seen !== size) throw new BlobMismatch(digest, `it has ${seen} bytes instead of ${size}`);
  if (`sha256:${hash.digest('hex')}` !== digest)
    throw new BlobMismatch(digest, 'its bytes have another digest');
}

function short(digest: string): string {
  return `${digest.slice(0, 19)}…`;
}
