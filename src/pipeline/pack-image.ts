/** Stage 3 where the release is an OCI image: the base and a layer with the app, or what a Dockerfile gave. */
import path from 'node:path';
import { failure } from '../domain/failure.ts';
import type { ImageConfig } from '../domain/image.ts';
import type { Plan } from '../domain/plan.ts';
import type { MachineImage } from '../isolation/image.ts';
import { type Artifact, neverRun } from '../release/artifact.ts';
import { type Imported, importArchive } from '../release/oci/archive.ts';
import { type Assembled, assembleImage } from '../release/oci/assemble.ts';
import { failed, ok, type Result, type Run } from './run.ts';
import { SOURCE_DATE_EPOCH } from './source-date-epoch.ts';

export interface ImagePacking {
  objects: Run['objects'];
  tmp_dir: string;
  name: string;
  max_bytes: number;
  signal: AbortSignal;
}

/** Rejects with ArtifactTooLarge. `root`, `cwd`: what of the workspace goes in, and where the command starts in it. */
export async function packApp(
  run: Run,
  of: {
    packing: ImagePacking;
    base: MachineImage;
    plan: Plan;
    root: string;
    cwd: string;
    recheck: boolean;
  },
): Promise<Artifact> {
  const { packing, base, plan, root, cwd, recheck } = of;
  const image = await assembleImage({
    ...packing,
    base,
    recheck,
    root,
    prefix: 'workspace/',
    exclude: neverRun,
    run: {
      command: plan.start ?? '',
      cwd: path.posix.join('/workspace', cwd),
      env: plan.run_env,
      port: plan.port,
      user: null,
      labels: {},
    },
  });
  return artifactOf(image, { base: run.builder_base, workdir: cwd });
}

/** Rejects with ArtifactTooLarge. */
export async function packBuiltImage(of: {
  packing: ImagePacking;
  archive: string;
}): Promise<Result<Artifact>> {
  const image = await importArchive({
    ...of.packing,
    archive: of.archive,
    // Equal builds give equal digests whatever the clock said (I11).
    normalise: { epoch_s: SOURCE_DATE_EPOCH, keep: 0 },
  });
  const { Cmd, Entrypoint } = image.config.config ?? {};
  if (!Cmd?.length && !Entrypoint?.length) return failed(nothingToRun());
  return ok(artifactOf(image, { base: 'dockerfile' }));
}

function artifactOf(
  image: Omit<Imported, 'manifest'> & Partial<Assembled>,
  also: { base: string; workdir?: string },
): Artifact {
  const [manifest, ...rest] = image.blobs;
  const stored_bytes = image.blobs.reduce((sum, { size_bytes }) => sum + size_bytes, 0);
  return {
    kind: 'oci',
    sha256: image.digest.slice('sha256:'.length),
    object_key: manifest!.key,
    stored_bytes,
    manifest: {
      ...(image.files === undefined ? {} : { files: image.files }),
      total_bytes: image.total_bytes ?? stored_bytes,
      layers: image.config.rootfs.diff_ids.length,
      entrypoint: null,
      ...also,
      blob_keys: rest.map(({ key }) => key),
      exposed_port: exposedPort(image.config),
    },
    objects: image.blobs.map(({ key, size_bytes }, at) => ({
      key,
      kind: at === 0 ? ('release' as const) : ('blob' as const),
      size_bytes,
    })),
    skipped: image.skipped ?? [],
  };
}

/** The lowest TCP port that the image exposes: the one people mean when there are several. */
export function exposedPort(config: ImageConfig): number | null {
  const ports = Object.keys(config.config?.ExposedPorts ?? {})
    .filter((name) => !name.endsWith('/udp') && !name.endsWith('/sctp'))
    .map((name) => Number.parseInt(name, 10))
    .filter((port) => port >= 1 && port <= 65_535);
  return ports.length === 0 ? null : Math.min(...ports);
}

function nothingToRun() {
  return failure({
    stage: 'release',
    code: 'DOCKERFILE_INVALID',
    message:
      'The image that the Dockerfile builds has neither CMD nor ENTRYPOINT, so there is nothing to run.',
    next_step: 'End the Dockerfile with a CMD that starts the server, and publish again.',
  });
}
