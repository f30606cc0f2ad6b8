/**
 * Images that Kiln makes itself, without a container engine: the layers of a base and one more with the app. All
 * that is written is fixed by its content (canonical tar, gzip of one level, no clock), so equal input has equal digests.
 */
import { createReadStream } from 'node:fs';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import type { Readable } from 'node:stream';
import type { ImageConfig, ImageRunConfig } from '../../domain/image.ts';
import type { MachineImage } from '../../isolation/image.ts';
import { packTree } from '../../source/pack.ts';
import type { ObjectStore } from '../../store/objects/port.ts';
import { writeLayer } from './layer-file.ts';
import { asOciLayer, BASE_DIGEST, hostArchitecture } from './manifest.ts';
import {
  digestOfFile,
  hasBlob,
  layerDescriptor,
  objectsOf,
  putBlob,
  putBlobFile,
  putImage,
} from './store.ts';

/** Images have no age: a time in them would make equal ones differ (I11). */
const EPOCH = '1970-01-01T00:00:00Z';

export interface AppRun {
  /** Run as `/bin/sh -c <command>`. */
  command: string;
  /** Absolute, in the image. */
  cwd: string;
  /** Over the base's. */
  env: Record<string, string>;
  port: number | null;
  /** Null: the base's. */
  user: string | null;
  labels: Record<string, string>;
}

export interface Assembly {
  objects: ObjectStore;
  base: Pick<MachineImage, 'manifest' | 'config' | 'blob' | 'digest'>;
  /** The folder after the build. */
  root: string;
  /** Where it is in the image: 'workspace/'. */
  prefix: string;
  exclude?: (rel: string, is_dir: boolean) => boolean;
  /** Files beside the tree, by full path in the image. */
  extra?: { path: string; content: Buffer; mode?: number }[];
  run: AppRun;
  tmp_dir: string;
  /** Unique name for the temporary files. */
  name: string;
  /** Of the app layer, uncompressed. */
  max_bytes: number;
  /** Read what the store has of the base, instead of only looking for it: damaged layers are brought once more. */
  recheck?: boolean;
  signal?: AbortSignal;
}

export interface Assembled {
  /** Of the manifest. */
  digest: string;
  config: ImageConfig;
  /** Every object the image consists of: manifest first, then configuration and layers. */
  blobs: { key: string; size_bytes: number }[];
  /** Files and links of the app layer. */
  files: number;
  /** Sum of their contents. */
  total_bytes: number;
  skipped: string[];
}

/** Rejects with ArtifactTooLarge (source/pack.ts). */
export async function assembleImage(of: Assembly): Promise<Assembled> {
  const { objects, base, run } = of;
  const out_path = path.join(of.tmp_dir, `${of.name}.layer.tar.gz`);
  try {
    const packed = await packTree({
      root: of.root,
      prefix: of.prefix,
      extra: of.extra ?? [],
      exclude: of.exclude ?? (() => false),
      out_path,
      compress: 'gzip',
      max_bytes: of.max_bytes,
      ...(of.signal ? { signal: of.signal } : {}),
    });
    await bringLayers(of);
    const layer = await putBlobFile(objects, out_path, await digestOfFile(out_path));
    const image = await putImage(objects, {
      config: appConfig(base.config, run, `sha256:${packed.sha256}`),
      layers: [...base.manifest.layers.map(asOciLayer), layerDescriptor(layer)],
      annotations: { [BASE_DIGEST]: base.digest },
    });
    return {
      digest: image.digest,
      config: image.config,
      blobs: objectsOf(image.blobs),
      files: packed.files,
      total_bytes: packed.file_bytes,
      skipped: packed.skipped,
    };
  } finally {
    await rm(out_path, { force: true });
  }
}

/** Copies what the store does not have yet. */
async function bringLayers({ objects, base, recheck, signal }: Assembly): Promise<void> {
  for (const layer of base.manifest.layers) {
    signal?.throwIfAborted();
    if (recheck || !(await hasBlob(objects, layer)))
      await putBlob(objects, await base.blob(layer.digest), layer);
  }
}

function appConfig(base: ImageConfig, run: AppRun, diff_id: string): ImageConfig {
  const inherited = base.config ?? {};
  const port = run.port === null ? {} : { ExposedPorts: { [`${run.port}/tcp`]: {} } };
  const labels = { ...inherited.Labels, ...run.labels };
  // Its entrypoint, health check and ports are about what the base runs, not about the app.
  const config: ImageRunConfig = {
    ...(run.user !== null ? { User: run.user } : inherited.User ? { User: inherited.User } : {}),
    ...port,
    Env: mergeEnv(inherited.Env ?? [], run.env),
    Cmd: ['/bin/sh', '-c', run.command],
    ...(inherited.Volumes ? { Volumes: inherited.Volumes } : {}),
    WorkingDir: run.cwd,
    ...(Object.keys(labels).length > 0 ? { Labels: sorted(labels) } : {}),
  };
  return {
    architecture: base.architecture,
    os: base.os,
    ...(base.variant ? { variant: base.variant } : {}),
    created: EPOCH,
    config,
    rootfs: { type: 'layers', diff_ids: [...base.rootfs.diff_ids, diff_id] },
    history: [...(base.history ?? []), { created: EPOCH, created_by: 'kiln publish', comment: 'the app' }],
  };
}

/** The base's order, then ours by name: what a caller's object was built from must not show in the digest. */
function mergeEnv(base: string[], ours: Record<string, string>): string[] {
  const env = new Map(base.map((line) => [line.split('=', 1)[0]!, line]));
  for (const [name, value] of Object.entries(sorted(ours))) env.set(name, `${name}=${value}`);
  return [...env.values()];
}

function sorted(record: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(record).sort(([a], [b]) => (a < b ? -1 : 1)));
}

/**
 * An image of one layer, made of a root file system's tar (compressed or not): a base without a registry. The tar's
 * bytes decide the digest; `config` is what programs in it need (PATH, for one).
 */
export async function imageFromRootfsTar(of: {
  objects: ObjectStore;
  tar: string | Readable;
  config: ImageRunConfig;
  /** For the history: what it was made from. */
  created_by: string;
  tmp_dir: string;
  name: string;
  /** Of the uncompressed tar. */
  max_bytes: number;
  architecture?: string;
}): Promise<Pick<Assembled, 'digest' | 'config' | 'blobs'>> {
  const out_path = path.join(of.tmp_dir, `${of.name}.rootfs.tar.gz`);
  const input = typeof of.tar === 'string' ? createReadStream(of.tar) : of.tar;
  try {
    const layer = await writeLayer(input, out_path, {
      max_bytes: of.max_bytes,
      rewrite: { epoch_s: null },
    });
    await putBlobFile(of.objects, out_path, layer.digest);
    const image = await putImage(of.objects, {
      config: {
        architecture: of.architecture ?? hostArchitecture(),
        os: 'linux',
        created: EPOCH,
        config: of.config,
        rootfs: { type: 'layers', diff_ids: [layer.diff_id] },
        history: [{ created: EPOCH, created_by: of.created_by }],
      },
      layers: [layerDescriptor(layer)],
    });
    return { digest: image.digest, config: image.config, blobs: objectsOf(image.blobs) };
  } finally {
    await rm(out_path, { force: true });
  }
}
