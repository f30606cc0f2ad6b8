/**
 * Image archives that other tools made, brought into the object store: OCI layouts (`buildctl --output type=oci`, skopeo),
 * `docker save`, and the mixture of both that newer Dockers save. An archive may be hostile: it is unpacked by the
 * extractor that sources go through, and everything in it is checked against the digests that name it.
 *
 * Normalised, equal builds are equal images: the layers that the build made lose their times, and so do the dates of
 * the configuration.
 */
import { createReadStream } from 'node:fs';
import { readFile, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import type { Readable } from 'node:stream';
import { z } from 'zod';
import type { Descriptor, ImageConfig, ImageManifest } from '../../domain/image.ts';
import { MEDIA_TYPES } from '../../domain/image.ts';
import { extractTar } from '../../source/extract.ts';
import { resolveAtRest } from '../../source/paths.ts';
import type { ObjectStore } from '../../store/objects/port.ts';
import type { Assembled } from './assemble.ts';
import { diffIdOf, writeLayer } from './layer-file.ts';
import {
  asOciLayer,
  chooseManifest,
  hexOf,
  INDEX_TYPES,
  invalidImage,
  MAX_DOCUMENT_BYTES,
  parseConfig,
  parseIndex,
  parseManifest,
} from './manifest.ts';
import {
  BlobMismatch,
  digestOfFile,
  layerDescriptor,
  objectsOf,
  putBlobFile,
  putBytes,
  putImage,
} from './store.ts';

export interface Normalising {
  /** No time in the image is later; seconds since 1970. */
  epoch_s: number;
  /** Layers that came from the base and stay as they are: the lowest so many, or those with these diff_ids. */
  keep: number | ReadonlySet<string>;
}

export interface Importing {
  objects: ObjectStore;
  archive: string | Readable;
  tmp_dir: string;
  /** Unique name for the temporary files. */
  name: string;
  /** Of the archive, and of its layers uncompressed. */
  max_bytes: number;
  /** Null: the image stays as it is, digest included. */
  normalise: Normalising | null;
  /** Which image of a multi-platform archive; this machine's. */
  architecture?: string;
  signal?: AbortSignal;
}

export type Imported = Pick<Assembled, 'digest' | 'config' | 'blobs'> & { manifest: ImageManifest };

const MAX_FILES = 10_000;
const MAX_INDEX_DEPTH = 3;

/** @throws KilnError INVALID_ARCHIVE, SOURCE_TOO_LARGE, UNSUPPORTED, STORAGE_FAILED */
export async function importArchive(of: Importing): Promise<Imported> {
  const dir = path.join(of.tmp_dir, `${of.name}.archive`);
  try {
    await extractTar({
      input: of.archive,
      into: dir,
      limits: { max_bytes: of.max_bytes, max_files: MAX_FILES },
      ...(of.signal ? { signal: of.signal } : {}),
    });
    const found = (await openLayout(dir, of.architecture)) ?? (await openDockerSave(dir));
    if (!found)
      throw invalidImage('The archive is no image: it has neither an index.json nor a manifest.json');
    return await bring(of, dir, found);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

/** An image of an unpacked archive. */
interface Unpacked {
  config: ImageConfig;
  config_bytes: Buffer;
  /** Null when the archive has none (docker save): its bytes are then Kiln's. */
  manifest: { bytes: Buffer; parsed: ImageManifest } | null;
  layers: { file: string; descriptor: Descriptor | null }[];
}

async function openLayout(dir: string, architecture?: string): Promise<Unpacked | null> {
  const index = await readDocument(dir, 'index.json');
  if (!index) return null;
  const blob = (digest: string) => `blobs/sha256/${hexOf(digest)}`;
  const verified = async (digest: string) => {
    const bytes = await readDocument(dir, blob(digest));
    if (!bytes) throw invalidImage(`The archive has no blob ${digest}`);
    if ((await digestOfFile(path.join(dir, blob(digest)))) !== digest)
      throw new BlobMismatch(digest, 'the archive has other bytes under its name');
    return bytes;
  };
  let entries = parseIndex(index);
  let chosen: Descriptor | null = null;
  for (let depth = 0; chosen === null || INDEX_TYPES.includes(chosen.mediaType); depth++) {
    if (depth === MAX_INDEX_DEPTH) throw invalidImage('The archive has indexes in indexes in indexes');
    if (chosen) entries = parseIndex(await verified(chosen.digest));
    // The same image under several tags is one image.
    chosen =
      new Set(entries.map(({ digest }) => digest)).size === 1
        ? entries[0]!
        : chooseManifest(entries, architecture);
  }
  const bytes = await verified(chosen.digest);
  const parsed = parseManifest(bytes);
  const config_bytes = await verified(parsed.config.digest);
  const config = parseConfig(config_bytes, parsed);
  const layers = parsed.layers.map((descriptor) => ({ file: blob(descriptor.digest), descriptor }));
  return { config, config_bytes, manifest: { bytes, parsed }, layers };
}

const docker_save = z
  .array(z.object({ Config: z.string().max(4096), Layers: z.array(z.string().max(4096)).max(500) }))
  .max(1000);

async function openDockerSave(dir: string): Promise<Unpacked | null> {
  const listing = await readDocument(dir, 'manifest.json');
  if (!listing) return null;
  const parsed = docker_save.safeParse(jsonOf(listing));
  if (!parsed.success) throw invalidImage('The manifest.json of the archive is not one of docker save');
  const [image, ...more] = parsed.data;
  if (!image || more.length > 0)
    throw invalidImage(`The archive holds ${parsed.data.length} images instead of one`);
  const config_bytes = await readDocument(dir, image.Config);
  if (!config_bytes) throw invalidImage('The archive has no configuration');
  const layers = image.Layers.map((file) => ({ file, descriptor: null }));
  const stand_in = layers.map(() => ({ mediaType: MEDIA_TYPES.layer_tar, digest: '', size: 0 }));
  return { config: parseConfig(config_bytes, { layers: stand_in }), config_bytes, manifest: null, layers };
}

function jsonOf(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch {
    return null;
  }
}

/** Null when there is no such file. A name that leaves the archive is refused. */
async function readDocument(dir: string, name: string): Promise<Buffer | null> {
  const file = await resolveAtRest(dir, name);
  const info = await stat(file).catch(() => null);
  if (!info?.isFile()) return null;
  if (info.size > MAX_DOCUMENT_BYTES)
    throw invalidImage(`A document of the archive has ${info.size} bytes, over ${MAX_DOCUMENT_BYTES}`);
  return readFile(file);
}

async function bring(of: Importing, dir: string, from: Unpacked): Promise<Imported> {
  const { normalise, objects } = of;
  const layers: Descriptor[] = [];
  const diff_ids: string[] = [];
  const known = new Map<string, Awaited<ReturnType<typeof bringLayer>>>();
  for (const [i, layer] of from.layers.entries()) {
    of.signal?.throwIfAborted();
    const diff_id = from.config.rootfs.diff_ids[i]!;
    const epoch_s = normalise && !isKept(normalise.keep, i, diff_id) ? normalise.epoch_s : null;
    // A layer may be there twice, and bringing it moves its file.
    const key = `${layer.file} ${diff_id} ${epoch_s}`;
    const brought = known.get(key) ?? (await bringLayer(of, dir, `${i}`, { ...layer, diff_id, epoch_s }));
    known.set(key, brought);
    layers.push(brought.descriptor);
    diff_ids.push(brought.diff_id);
  }
  if (normalise === null && from.manifest) {
    await putBytes(objects, from.config_bytes);
    const { digest, size_bytes } = await putBytes(objects, from.manifest.bytes);
    const manifest = from.manifest.parsed;
    const blobs = [manifest.config, ...layers].map((blob) => ({
      digest: blob.digest,
      size_bytes: blob.size,
    }));
    return { digest, manifest, config: from.config, blobs: objectsOf([{ digest, size_bytes }, ...blobs]) };
  }
  const config = { ...from.config, rootfs: { ...from.config.rootfs, diff_ids } };
  // Annotations of builders hold dates and names of their own making: the manifest is Kiln's.
  const image = await putImage(objects, {
    ...(normalise
      ? { config: dated(config, normalise.epoch_s) }
      : { config, config_bytes: from.config_bytes }),
    layers: layers.map(asOciLayer),
  });
  return { ...image, blobs: objectsOf(image.blobs) };
}

function isKept(keep: Normalising['keep'], i: number, diff_id: string): boolean {
  return typeof keep === 'number' ? i < keep : keep.has(diff_id);
}

/** With an epoch the layer is written anew; else a compressed one is taken as it is, and a plain one compressed. */
async function bringLayer(
  of: Importing,
  dir: string,
  name: string,
  layer: { file: string; descriptor: Descriptor | null; diff_id: string; epoch_s: number | null },
): Promise<{ descriptor: Descriptor; diff_id: string }> {
  const { objects, max_bytes } = of;
  const file = await resolveAtRest(dir, layer.file);
  const info = await stat(file).catch(() => null);
  if (!info?.isFile())
    throw invalidImage(`The archive has no layer ${JSON.stringify(layer.file.slice(0, 200))}`);
  const { descriptor } = layer;
  if (descriptor && (info.size !== descriptor.size || (await digestOfFile(file)) !== descriptor.digest))
    throw new BlobMismatch(descriptor.digest, 'the archive has other bytes under its name');
  const diff_id = await diffIdOf(createReadStream(file), max_bytes);
  if (diff_id !== layer.diff_id)
    throw invalidImage(`A layer unpacks to ${diff_id}, but the configuration says ${layer.diff_id}`);
  if (layer.epoch_s === null && descriptor) {
    await putBlobFile(objects, file, descriptor.digest);
    return { descriptor, diff_id };
  }
  const out = path.join(dir, `${name}.rewritten`);
  const rewrite = layer.epoch_s === null ? 'as_is' : { epoch_s: layer.epoch_s };
  const written = await writeLayer(createReadStream(file), out, { max_bytes, rewrite });
  await putBlobFile(objects, out, written.digest);
  return { descriptor: layerDescriptor(written), diff_id: written.diff_id };
}

function dated(config: ImageConfig, epoch_s: number): ImageConfig {
  const epoch = new Date(epoch_s * 1000).toISOString().replace('.000Z', 'Z');
  const earlier = (date: string | undefined) => {
    const at = Date.parse(date ?? '');
    return at <= epoch_s * 1000 ? date! : epoch;
  };
  const history = config.history?.map((entry) => ({ ...entry, created: earlier(entry.created) }));
  return { ...config, created: epoch, ...(history ? { history } : {}) };
}
