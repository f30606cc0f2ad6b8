/**
 * Manifests and configurations as anybody may have written them. Parsed strictly and with limits; the bytes themselves
 * are kept as they came, because their digest is their name. Docker's older media types are read like OCI's.
 */
import { createHash } from 'node:crypto';
import { z } from 'zod';
import { KilnError } from '../../domain/errors.ts';
import type { Descriptor, ImageConfig, ImageManifest } from '../../domain/image.ts';
import { MEDIA_TYPES } from '../../domain/image.ts';

/** Registries cut manifests at 4 MiB. */
export const MAX_DOCUMENT_BYTES = 4 * 1024 * 1024;
const MAX_LAYERS = 500;
const MAX_TEXT = 64 * 1024;
const MAX_ITEMS = 10_000;

/** Annotation of a manifest: the digest of the image that this one was made on (OCI's own name for it). */
export const BASE_DIGEST = 'org.opencontainers.image.base.digest';

const DIGEST = /^sha256:[0-9a-f]{64}$/;

const DOCKER_MEDIA_TYPES = {
  manifest: 'application/vnd.docker.distribution.manifest.v2+json',
  index: 'application/vnd.docker.distribution.manifest.list.v2+json',
  config: 'application/vnd.docker.container.image.v1+json',
  layer_gzip: 'application/vnd.docker.image.rootfs.diff.tar.gzip',
  layer_tar: 'application/vnd.docker.image.rootfs.diff.tar',
} as const;

export const MANIFEST_TYPES: readonly string[] = [MEDIA_TYPES.manifest, DOCKER_MEDIA_TYPES.manifest];
export const INDEX_TYPES: readonly string[] = [MEDIA_TYPES.index, DOCKER_MEDIA_TYPES.index];
const CONFIG_TYPES: readonly string[] = [MEDIA_TYPES.config, DOCKER_MEDIA_TYPES.config];

export type LayerCoding = 'gzip' | 'zstd' | 'none';

const LAYER_CODINGS: Record<string, LayerCoding> = {
  [MEDIA_TYPES.layer_gzip]: 'gzip',
  [DOCKER_MEDIA_TYPES.layer_gzip]: 'gzip',
  [MEDIA_TYPES.layer_tar]: 'none',
  [DOCKER_MEDIA_TYPES.layer_tar]: 'none',
  [MEDIA_TYPES.layer_zstd]: 'zstd',
};

/** How a layer of this media type is compressed. */
export function layerCoding(media_type: string): LayerCoding {
  return LAYER_CODINGS[media_type]!;
}

/** An OCI manifest names its layers by OCI's types, wherever they come from. */
export function asOciLayer({ mediaType, digest, size }: Descriptor): Descriptor {
  const coding = layerCoding(mediaType);
  const type = { gzip: MEDIA_TYPES.layer_gzip, zstd: MEDIA_TYPES.layer_zstd, none: MEDIA_TYPES.layer_tar };
  return { mediaType: type[coding], digest, size };
}

const text = z.string().max(MAX_TEXT);
const texts = z.array(text).max(MAX_ITEMS);
const digest = z.string().regex(DIGEST, 'is not sha256:<64 lower-case hex digits>');

const descriptor = z.object({
  mediaType: z.string().max(255),
  digest,
  size: z.int().min(0),
  annotations: z.record(z.string().max(1024), text).optional(),
});

const manifest = z.object({
  schemaVersion: z.literal(2),
  mediaType: z.string().max(255).optional(),
  config: descriptor,
  layers: z.array(descriptor).max(MAX_LAYERS),
  annotations: z.record(z.string().max(1024), text).optional(),
});

const index = z.object({
  schemaVersion: z.literal(2),
  manifests: z
    .array(
      descriptor.extend({
        platform: z
          .object({ architecture: text, os: text, variant: text.optional() })
          .nullish()
          .transform((platform) => platform ?? undefined),
      }),
    )
    .max(MAX_ITEMS),
});

const empty = z.object({});
/** Go writes null for what is empty. */
const orMissing = <T extends z.ZodType>(type: T) =>
  type.nullish().transform((value) => (value === null ? undefined : value));

const run_config = z.object({
  User: orMissing(text),
  ExposedPorts: orMissing(z.record(z.string().max(64), empty)),
  Env: orMissing(texts),
  Entrypoint: orMissing(texts),
  Cmd: orMissing(texts),
  WorkingDir: orMissing(text),
  Labels: orMissing(z.record(z.string().max(1024), text)),
  StopSignal: orMissing(text),
  Volumes: orMissing(z.record(z.string().max(4096), empty)),
  Healthcheck: orMissing(
    z.object({
      Test: orMissing(texts),
      Interval: orMissing(z.number()),
      Timeout: orMissing(z.number()),
      StartPeriod: orMissing(z.number()),
      Retries: orMissing(z.number()),
    }),
  ),
});

const config = z.object({
  architecture: text,
  os: text,
  variant: orMissing(text),
  created: orMissing(text),
  config: orMissing(run_config),
  rootfs: z.object({ type: z.literal('layers'), diff_ids: z.array(digest).max(MAX_LAYERS) }),
  history: orMissing(
    z
      .array(
        z.object({
          created: orMissing(text),
          created_by: orMissing(text),
          comment: orMissing(text),
          author: orMissing(text),
          empty_layer: orMissing(z.boolean()),
        }),
      )
      .max(MAX_ITEMS),
  ),
});

export type IndexEntry = z.infer<typeof index>['manifests'][number];

/** @throws KilnError INVALID_ARCHIVE naming what is wrong with the image */
export function invalidImage(what: string, cause?: unknown): KilnError {
  return new KilnError('INVALID_ARCHIVE', `${what}. Make or push the image again with a current tool.`, {
    cause,
  });
}

/** The 64 hex digits of `sha256:…`; other algorithms are refused. */
export function hexOf(digest: string): string {
  if (!DIGEST.test(digest))
    throw invalidImage(`${JSON.stringify(digest.slice(0, 80))} is not a sha256 digest`);
  return digest.slice('sha256:'.length);
}

export function digestOf(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

export function parseManifest(bytes: Uint8Array): ImageManifest {
  const parsed = parse('manifest', manifest, bytes);
  const media_type = parsed.mediaType ?? MEDIA_TYPES.manifest;
  if (!MANIFEST_TYPES.includes(media_type)) throw invalidImage(`The manifest says it is a ${media_type}`);
  if (!CONFIG_TYPES.includes(parsed.config.mediaType)) {
    throw invalidImage(`The manifest is of a ${parsed.config.mediaType}, not of a container image`);
  }
  const foreign = parsed.layers.find((layer) => !(layer.mediaType in LAYER_CODINGS));
  if (foreign) throw invalidImage(`A layer is of the type ${foreign.mediaType}, which is not supported`);
  return { ...parsed, mediaType: media_type } as ImageManifest;
}

/** `manifest` is the one the configuration belongs to: they must agree about the layers. */
export function parseConfig(bytes: Uint8Array, of: Pick<ImageManifest, 'layers'>): ImageConfig {
  const parsed = parse('configuration', config, bytes);
  if (parsed.rootfs.diff_ids.length !== of.layers.length) {
    throw invalidImage(
      `The image has ${of.layers.length} layers, but its configuration names ${parsed.rootfs.diff_ids.length}`,
    );
  }
  return parsed as ImageConfig;
}

export function parseIndex(bytes: Uint8Array): IndexEntry[] {
  return parse('index', index, bytes).manifests;
}

/** Node's architecture names as image platforms have them. */
const ARCHITECTURES: Record<string, string> = { x64: 'amd64', arm64: 'arm64', arm: 'arm', ia32: '386' };

export function hostArchitecture(): string {
  return ARCHITECTURES[process.arch] ?? process.arch;
}

/** The image for this machine out of several; attestations and the like are no images. */
export function chooseManifest(entries: IndexEntry[], architecture = hostArchitecture()): Descriptor {
  const images = entries.filter(
    (entry) => MANIFEST_TYPES.includes(entry.mediaType) || INDEX_TYPES.includes(entry.mediaType),
  );
  const named = images.find(
    ({ platform }) => platform?.os === 'linux' && platform.architecture === architecture,
  );
  const unnamed = images.length === 1 && images[0]!.platform === undefined ? images[0] : undefined;
  const found = named ?? unnamed;
  if (!found) {
    const there = images.map(({ platform }) => (platform ? `${platform.os}/${platform.architecture}` : '?'));
    throw new KilnError(
      'UNSUPPORTED',
      `The image is not made for linux/${architecture}, only for ${there.join(', ') || 'nothing'}. Build or choose one that is.`,
    );
  }
  return found;
}

function parse<T extends z.ZodType>(what: string, schema: T, bytes: Uint8Array): z.infer<T> {
  if (bytes.length > MAX_DOCUMENT_BYTES)
    throw invalidImage(`The image's ${what} has ${bytes.length} bytes, over ${MAX_DOCUMENT_BYTES}`);
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (error) {
    throw invalidImage(`The image's ${what} is not JSON`, error);
  }
  const result = schema.safeParse(json);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw invalidImage(`The image's ${what} is not valid: ${issue!.path.join('.') || 'it'}: ${issue!.message}`);
}
