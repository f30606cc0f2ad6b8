/**
 * The root file system of a virtual machine, as files that releases share: a squashfs of the layers of a base, and a
 * small one with what the layers above it change (flatten.ts). Made when first needed and kept by what is in them: all
 * releases on one base have one file of it.
 */
import { createReadStream, createWriteStream } from 'node:fs';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createZstdCompress } from 'node:zlib';
import type { MachineImage } from '../../isolation/image.ts';
import { flatten, layerHeaders } from './flatten.ts';
import { BASE_DIGEST, digestOf, hexOf } from './manifest.ts';
import { makeFile, makeSquashfs } from './squashfs.ts';

type Layered = Pick<MachineImage, 'manifest' | 'config'>;
export type KnownBase = Pick<MachineImage, 'config' | 'squashfs'>;

/** By diff_id, bottom first. */
export interface RootSplit {
  /** Layers of the base; none: the image is one file. */
  below: string[];
  above: string[];
}

/** Part of every file's name: to be raised when equal layers are written otherwise. */
const FORMAT = 1;

/**
 * An image is split where the layers of the base end that builds start from today (a Dockerfile may start from it, too).
 * One that Kiln put together on an earlier base has one layer above it. Every other is one file: nobody says which of
 * its layers another image has as well.
 */
export function splitRoot({ manifest, config }: Layered, base: Pick<KnownBase, 'config'> | null): RootSplit {
  const { diff_ids } = config.rootfs;
  const known = base?.config.rootfs.diff_ids ?? [];
  const starts_with_known = known.length > 0 && known.every((id, i) => id === diff_ids[i]);
  const is_assembled = manifest.annotations?.[BASE_DIGEST] !== undefined;
  const count = starts_with_known ? known.length : is_assembled ? diff_ids.length - 1 : 0;
  return { below: diff_ids.slice(0, count), above: diff_ids.slice(count) };
}

/** A squashfs: of so many of the image's layers, from the bottom, of which the first `below` are in the file under it. */
interface Part {
  below: number;
  end: number;
  name: string;
}

function partsOf({ below, above }: RootSplit): Part[] {
  const part = (under: string[], layers: string[]): Part => ({
    below: under.length,
    end: under.length + layers.length,
    name: `${hexOf(digestOf(Buffer.from(JSON.stringify([FORMAT, under, layers]))))}.squashfs`,
  });
  if (below.length === 0) return [part([], above)];
  return above.length === 0 ? [part([], below)] : [part([], below), part(below, above)];
}

/** Names of all that is kept of a root, and of what the next release on its base is made with. */
export function rootFileNames(split: RootSplit): string[] {
  return [...partsOf(split).map(({ name }) => name), ...split.below.map(headersName)];
}

function headersName(diff_id: string): string {
  return `${hexOf(diff_id)}.headers`;
}

export interface Root {
  image: Layered & Pick<MachineImage, 'blob'>;
  split: RootSplit;
  /** The base that `split` knew. If the layers below are its own, so is their file. */
  base: KnownBase | null;
  images_dir: string;
  /** Of the uncompressed layers together, when they are flattened. */
  max_bytes?: number;
}

/** Paths of squashfs files, bottom first; each is made to be laid over those before it. */
export async function rootFiles(root: Root): Promise<string[]> {
  const { split, base, images_dir } = root;
  const layers = layersOf(root);
  const limits = root.max_bytes === undefined ? {} : { max_bytes: root.max_bytes };
  const files: string[] = [];
  for (const { name, below, end } of partsOf(split)) {
    if (base && below === 0 && isSame(split.below, base.config.rootfs.diff_ids))
      files.push(...(await base.squashfs()));
    else {
      const open = () => flatten({ layers: layers.slice(0, end), below, limits });
      files.push(await makeSquashfs(images_dir, name, open));
    }
  }
  return files;
}

function layersOf({ image, split, images_dir }: Root) {
  return image.manifest.layers.map(({ digest }, i) => {
    const diff_id = image.config.rootfs.diff_ids[i]!;
    const open = () => image.blob(digest);
    // Unpacking a large base to see its names would take longer than all the rest of a small release.
    const headers = () => openHeaders(images_dir, diff_id, open);
    return { diff_id, open, ...(i < split.below.length ? { headers } : {}) };
  });
}

async function openHeaders(
  images_dir: string,
  diff_id: string,
  open: () => Promise<Readable>,
): Promise<Readable> {
  const file = await makeFile(images_dir, headersName(diff_id), async (path) => {
    const headers = Readable.from(layerHeaders(await open(), diff_id), { objectMode: false });
    await pipeline(headers, createZstdCompress(), createWriteStream(path));
  });
  return createReadStream(file);
}

function isSame(a: string[], b: string[]): boolean {
  return a.length === b.length && a.every((id, i) => id === b[i]);
}
