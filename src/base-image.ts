/**
 * What builds in docker and microVMs start from: the builder image, an image of a registry, or one in a tar. Kept apart
 * from releases (`<data>/base-images`), where retention has nothing to say; always used by digest.
 */
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { KilnError } from './domain/errors.ts';
import type { Log } from './engine/context.ts';
import type { MachineImage } from './isolation/image.ts';
import type { BuilderImage } from './isolation/microvm/builder-image/image.ts';
import { importArchive } from './release/oci/archive.ts';
import { imageFromRootfsTar } from './release/oci/assemble.ts';
import { openImage } from './release/oci/image.ts';
import { digestOfFile } from './release/oci/store.ts';
import { pullImage } from './release/oci/transfer.ts';
import { fileObjectStore } from './store/objects/files.ts';
import type { ObjectStore } from './store/objects/port.ts';

const GIB = 1024 ** 3;
const MAX_BYTES = 16 * GIB;

export interface BaseImageOptions {
  /** The folder of base images. */
  dir: string;
  /** Where root file systems are made. */
  images_dir: string;
  /** A registry reference, a tar file (absolute path), or null for the builder image. */
  wanted: string | null;
  builder: BuilderImage | null;
  /** For proxies on the way to a registry. */
  host_env: Record<string, string | undefined>;
  say: Log;
}

/** Null: there is no builder image yet, and none was asked for. */
export async function openBaseImage(o: BaseImageOptions): Promise<MachineImage | null> {
  const objects = fileObjectStore(path.join(o.dir, 'objects'));
  // What a start that was cut short left half made would be in the way of this one.
  await objects.sweepTemp();
  await rm(path.join(o.dir, 'tmp'), { recursive: true, force: true });
  if (o.wanted !== null) {
    const digest = o.wanted.startsWith('/')
      ? await fromTar(o, objects, o.wanted)
      : await fromRegistry(o, objects, o.wanted);
    return openImage(objects, digest, { images_dir: o.images_dir });
  }
  if (o.builder === null) return null;
  const digest = await fromBuilder(o, objects, o.builder);
  const image = await openImage(objects, digest, { images_dir: o.images_dir });
  const { rootfs_squashfs } = o.builder;
  return { ...image, squashfs: async () => [rootfs_squashfs] };
}

function fromBuilder(o: BaseImageOptions, objects: ObjectStore, builder: BuilderImage): Promise<string> {
  return remembered(o, `builder-${builder.digest}`, objects, async (tmp_dir) => {
    o.say('warn', 'making the builder image a base for images; once, a minute or two');
    const made = await imageFromRootfsTar({
      ...{ objects, tmp_dir, name: builder.digest, max_bytes: MAX_BYTES },
      tar: builder.rootfs_tar,
      config: { Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', 'LANG=C.UTF-8'] },
      created_by: 'kiln builder-image build',
    });
    return made.digest;
  });
}

async function fromTar(o: BaseImageOptions, objects: ObjectStore, file: string): Promise<string> {
  const digest = await digestOfFile(file).catch((cause) => {
    throw new KilnError('VALIDATION_ERROR', `--base-image ${file} cannot be read.`, { cause });
  });
  return remembered(o, `tar-${digest.slice('sha256:'.length)}`, objects, async (tmp_dir) => {
    const name = path.basename(tmp_dir);
    const of = { objects, tmp_dir, name, archive: file, max_bytes: MAX_BYTES, normalise: null };
    return (await importArchive(of)).digest;
  });
}

/** A tag is looked up at every start; where the registry cannot be reached, what it meant last still serves. */
async function fromRegistry(o: BaseImageOptions, objects: ObjectStore, reference: string): Promise<string> {
  const name = `registry-${Buffer.from(reference).toString('base64url').slice(0, 180)}`;
  const known = await recall(o, name, objects);
  if (known !== null && reference.endsWith(known)) return known;
  try {
    const access = { proxy_env: o.host_env };
    const pulled = await pullImage({ objects, reference, access, max_bytes: MAX_BYTES });
    o.say('info', `base image ${pulled.pinned}`);
    await remember(o, name, pulled.digest);
    return pulled.digest;
  } catch (error) {
    if (known === null) throw error;
    o.say('warn', `the base image ${reference} could not be looked up; ${known} is used`, {
      error: String(error),
    });
    return known;
  }
}

/** The digest that a source gave before, or what `make` gives now. */
async function remembered(
  o: BaseImageOptions,
  name: string,
  objects: ObjectStore,
  make: (tmp_dir: string) => Promise<string>,
): Promise<string> {
  const known = await recall(o, name, objects);
  if (known !== null) return known;
  const tmp_dir = path.join(o.dir, 'tmp');
  await mkdir(tmp_dir, { recursive: true });
  const digest = await make(tmp_dir);
  await remember(o, name, digest);
  return digest;
}

async function recall(o: BaseImageOptions, name: string, objects: ObjectStore): Promise<string | null> {
  const digest = await readFile(path.join(o.dir, name), 'utf8').then(
    (text) => text.trim(),
    () => null,
  );
  if (digest === null || !/^sha256:[0-9a-f]{64}$/.test(digest)) return null;
  const whole = (await objects.head(`blobs/sha256/${digest.slice('sha256:'.length)}`)) !== null;
  return whole ? digest : null;
}

async function remember(o: BaseImageOptions, name: string, digest: string): Promise<void> {
  await mkdir(o.dir, { recursive: true });
  const file = path.join(o.dir, name);
  await writeFile(`${file}.part`, `${digest}\n`);
  await rename(`${file}.part`, file);
}
