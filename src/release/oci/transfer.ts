/** Whole images between registries and the object store. */

import { KilnError } from '../../domain/errors.ts';
import type { Descriptor } from '../../domain/image.ts';
import type { MachineImage } from '../../isolation/image.ts';
import type { ObjectStore } from '../../store/objects/port.ts';
import type { Imported } from './archive.ts';
import {
  chooseManifest,
  INDEX_TYPES,
  invalidImage,
  MAX_DOCUMENT_BYTES,
  parseConfig,
  parseIndex,
  parseManifest,
} from './manifest.ts';
import { formatReference, parseReference, type Reference } from './reference.ts';
import { Registry, type RegistryAccess } from './registry.ts';
import { getDocument, hasBlob, objectsOf, putBlob, putBytes } from './store.ts';

/** Layers on their way at once. */
const AT_ONCE = 3;
const MAX_INDEX_DEPTH = 3;

export interface Pulling {
  objects: ObjectStore;
  /** See reference.ts. */
  reference: string;
  access: RegistryAccess;
  /** Of all blobs together, as stored. */
  max_bytes: number;
  /** This machine's. */
  architecture?: string;
  signal?: AbortSignal;
}

export interface Pulled extends Imported {
  /** The reference by digest: the same image for ever. */
  pinned: string;
}

/** Brings an image into the store; what is there is not fetched again. The manifest comes last. */
export async function pullImage(of: Pulling): Promise<Pulled> {
  const reference = parseReference(of.reference);
  const registry = new Registry(reference, of.access, of.signal);
  try {
    const { bytes, digest } = await manifestFor(registry, reference, of.architecture);
    const manifest = parseManifest(bytes);
    const all = [manifest.config, ...manifest.layers];
    const total = all.reduce((sum, { size }) => sum + size, 0);
    if (total > of.max_bytes)
      throw new KilnError(
        'SOURCE_TOO_LARGE',
        `The image ${of.reference} has ${total} bytes, the limit is ${of.max_bytes}. Use a smaller one, or raise the limit.`,
      );
    if (manifest.config.size > MAX_DOCUMENT_BYTES)
      throw invalidImage(`The configuration of ${of.reference} is too large`);
    await eachOnce(all, async (blob) => {
      if (!(await hasBlob(of.objects, blob))) await putBlob(of.objects, registry.blob(blob), blob);
    });
    const config = parseConfig(await getDocument(of.objects, manifest.config.digest), manifest);
    const stored = await putBytes(of.objects, bytes);
    const blobs = all.map((blob) => ({ digest: blob.digest, size_bytes: blob.size }));
    const pinned = formatReference({ ...reference, tag: null, digest });
    return { digest, manifest, config, blobs: objectsOf([stored, ...blobs]), pinned };
  } finally {
    registry.close();
  }
}

async function manifestFor(registry: Registry, reference: Reference, architecture?: string) {
  let found = await registry.manifest(reference);
  for (let depth = 0; isIndex(found); depth++) {
    if (depth === MAX_INDEX_DEPTH) throw invalidImage('The image is an index of indexes of indexes');
    const { digest } = chooseManifest(parseIndex(found.bytes), architecture);
    found = await registry.manifest({ ...reference, tag: null, digest });
  }
  return found;
}

/** By what the document says of itself; older ones say it only in the header. */
function isIndex({ bytes, media_type }: { bytes: Buffer; media_type: string }): boolean {
  try {
    const said = JSON.parse(bytes.toString('utf8')).mediaType;
    return INDEX_TYPES.includes(typeof said === 'string' ? said : media_type);
  } catch {
    return false; // the parser has the better message
  }
}

export interface Pushing {
  image: Pick<MachineImage, 'digest' | 'manifest' | 'blob'>;
  /** With a tag, it is set; with a digest, it must be the image's. */
  reference: string;
  access: RegistryAccess;
  /** Repositories of the same registry whose blobs may be taken over: the base's, for one. */
  mount_from?: string | null;
  signal?: AbortSignal;
}

export interface Pushed {
  /** `host/repository@sha256:…` */
  pinned: string;
  /** Bytes that had to be sent. */
  sent_bytes: number;
  /** Blobs that were there, or were taken from another repository. */
  skipped: number;
}

/** What the registry has is not sent again. The manifest goes last: nobody sees half an image. */
export async function pushImage(of: Pushing): Promise<Pushed> {
  const { image } = of;
  const reference = parseReference(of.reference);
  if (reference.digest !== null && reference.digest !== image.digest)
    throw new KilnError(
      'VALIDATION_ERROR',
      `The image is ${image.digest}, not ${reference.digest}. Leave the digest out.`,
    );
  const registry = new Registry(reference, of.access, of.signal);
  let sent_bytes = 0;
  let skipped = 0;
  try {
    await eachOnce([...image.manifest.layers, image.manifest.config], async (blob) => {
      const outcome = await registry.pushBlob(blob, () => image.blob(blob.digest), of.mount_from ?? null);
      if (outcome === 'sent') sent_bytes += blob.size;
      else skipped++;
    });
    const bytes = Buffer.concat(await (await image.blob(image.digest)).toArray());
    await registry.pushManifest(bytes, image.manifest.mediaType, reference.tag);
    const pinned = formatReference({ ...reference, tag: null, digest: image.digest });
    return { pinned, sent_bytes: sent_bytes + bytes.length, skipped };
  } finally {
    registry.close();
  }
}

/** The first failure stops the others from starting. */
async function eachOnce(blobs: Descriptor[], action: (blob: Descriptor) => Promise<void>): Promise<void> {
  const todo = [...new Map(blobs.map((blob) => [blob.digest, blob])).values()];
  const work = async () => {
    for (let blob = todo.shift(); blob; blob = todo.shift()) {
      try {
        await action(blob);
      } catch (error) {
        todo.length = 0;
        throw error;
      }
    }
  };
  const results = await Promise.allSettled(Array.from({ length: AT_ONCE }, work));
  const failed = results.find((result) => result.status === 'rejected');
  if (failed) throw failed.reason;
}
