import { Readable } from 'node:stream';
import { KilnError } from '../../domain/errors.ts';
import type { Descriptor } from '../../domain/image.ts';
import type { MachineImage } from '../../isolation/image.ts';
import { zstdDecoded } from '../../source/zstd.ts';
import type { ObjectStore } from '../../store/objects/port.ts';
import { type ArchiveFile, archiveOf } from './archive-file.ts';
import { type KnownBase, rootFileNames, rootFiles, splitRoot } from './machine-root.ts';
import { layerCoding } from './manifest.ts';
import { getBlob, getDocument, readImage, type StoredImage } from './store.ts';

/**
 * An image of the object store as drivers need it; squashfs files are kept in `images_dir`.
 * @throws KilnError ARTIFACT_GONE, STORAGE_FAILED, INVALID_ARCHIVE
 */
export async function openImage(
  objects: ObjectStore,
  digest: string,
  o: {
    images_dir: string;
    /**
     * With it, the root of a machine is a file of the base and one of what the image has on top, wherever the image shows
     * its base; null: there is no base today. Without, it is one file whatever the image was made from.
     */
    base?: KnownBase | null;
    /** Of the uncompressed layers together, when they are flattened. */
    max_bytes?: number;
  },
): Promise<MachineImage> {
  const image = await readImage(objects, digest);
  const { manifest, config } = image;
  const blobs = new Map([manifest.config, ...manifest.layers].map((of) => [of.digest, of]));
  const blob = async (wanted: string): Promise<Readable> => {
    if (wanted === digest) return Readable.from([await getDocument(objects, digest)], { objectMode: false });
    const of = blobs.get(wanted);
    if (!of) throw new KilnError('NOT_FOUND', `${wanted} is no blob of the image ${digest}.`);
    return getBlob(objects, of);
  };
  return {
    digest,
    manifest,
    config,
    blob,
    dockerArchive: () => dockerArchive(image, (of) => blob(of.digest)),
    squashfs: () =>
      rootFiles({
        image: { manifest, config, blob },
        split: o.base === undefined ? { below: [], above: config.rootfs.diff_ids } : splitRoot(image, o.base),
        base: o.base ?? null,
        images_dir: o.images_dir,
        ...(o.max_bytes === undefined ? {} : { max_bytes: o.max_bytes }),
      }),
  };
}

/** Names of the files of an image's root in `images_dir`, whether they are there yet or not. Errors: as `openImage`. */
export async function imageFileNames(
  objects: ObjectStore,
  digest: string,
  base: KnownBase | null,
): Promise<string[]> {
  return rootFileNames(splitRoot(await readImage(objects, digest), base));
}

/**
 * What `docker load` takes. Layers stay compressed (gzip is read by every version); those with zstd are unpacked,
 * because Docker before 23 cannot, and therefore read twice: a tar has the size before the content.
 */
function dockerArchive(image: StoredImage, open: (of: Descriptor) => Promise<Readable>): Readable {
  return archiveOf(async function* () {
    const hex = (of: Descriptor) => of.digest.slice('sha256:'.length);
    const layers = new Map<string, Descriptor>();
    for (const layer of image.manifest.layers) layers.set(`${hex(layer)}/layer.tar`, layer);
    const config_name = `${hex(image.manifest.config)}.json`;
    const named = image.manifest.layers.map((layer) => `${hex(layer)}/layer.tar`);
    yield file('manifest.json', JSON.stringify([{ Config: config_name, RepoTags: null, Layers: named }]));
    yield { name: config_name, size: image.manifest.config.size, open: () => open(image.manifest.config) };
    for (const [name, layer] of layers) {
      if (layerCoding(layer.mediaType) === 'zstd') {
        const unpacked = async () => zstdDecoded(await open(layer));
        yield { name, size: await lengthOf(await unpacked()), open: unpacked };
      } else yield { name, size: layer.size, open: () => open(layer) };
    }
  });
}

async function lengthOf(stream: Readable): Promise<number> {
  let length = 0;
  for await (const chunk of stream) length += chunk.length;
  return length;
}

/** An OCI image layout in a tar, as `skopeo copy oci-archive:` reads it. `name` is what the image is called in it. */
export function exportOciLayout(
  image: Pick<MachineImage, 'digest' | 'manifest' | 'blob'>,
  name: string | null = null,
): Readable {
  const { digest, manifest, blob } = image;
  return archiveOf(async function* () {
    const manifest_bytes: Buffer[] = await (await blob(digest)).toArray();
    const size = manifest_bytes.reduce((sum, { length }) => sum + length, 0);
    const annotations = name === null ? {} : { annotations: { 'org.opencontainers.image.ref.name': name } };
    const entry = { mediaType: manifest.mediaType, digest, size, ...annotations };
    yield file('oci-layout', '{"imageLayoutVersion":"1.0.0"}');
    yield file('index.json', JSON.stringify({ schemaVersion: 2, manifests: [entry] }));
    const blobs = new Map([entry, manifest.config, ...manifest.layers].map((of) => [of.digest, of.size]));
    for (const [of, of_size] of [...blobs].sort())
      yield { name: `blobs/sha256/${of.slice('sha256:'.length)}`, size: of_size, open: () => blob(of) };
  });
}

function file(name: string, content: string): ArchiveFile {
  const bytes = Buffer.from(content);
  return { name, size: bytes.length, open: async () => Readable.from([bytes]) };
}
