/** Releases that are OCI images, given away: as a file, or into a registry. */
import type { Readable } from 'node:stream';
import { KilnError } from '../domain/errors.ts';
import type { Release } from '../domain/release.ts';
import type { MachineImage } from '../isolation/image.ts';
import { exportOciLayout, openImage } from '../release/oci/image.ts';
import { parseReference } from '../release/oci/reference.ts';
import { pushImage } from '../release/oci/transfer.ts';
import type { EngineContext } from './context.ts';

/** The part of the engine's context that this needs. */
export type ImageContext = Pick<EngineContext, 'objects' | 'push_registries'> & {
  folders: Pick<EngineContext['folders'], 'images'>;
};

export interface PushRequest {
  reference: string;
  username: string | null;
  password: string | null;
}

export interface PushedImage {
  /** By digest: the same image for ever. */
  reference: string;
  sent_bytes: number;
  skipped_blobs: number;
}

/** An OCI layout in a tar. Errors: UNSUPPORTED (no image), ARTIFACT_GONE. */
export async function exportRelease(ctx: ImageContext, release: Release): Promise<Readable> {
  return exportOciLayout(await imageOf(ctx, release));
}

/** Errors: UNSUPPORTED, ARTIFACT_GONE, VALIDATION_ERROR (reference), FORBIDDEN (registry not allowed, or its answer). */
export async function pushRelease(
  ctx: ImageContext,
  release: Release,
  to: PushRequest,
  signal: AbortSignal,
): Promise<PushedImage> {
  const { host } = parseReference(to.reference);
  // The engine connects to whatever is named: only to what its operator has named as well.
  if (!ctx.push_registries.includes(host))
    throw new KilnError(
      'FORBIDDEN',
      `This engine may not push to ${host}. Whoever runs it can allow that with --push-registries ${[...ctx.push_registries, host].join(',')}.`,
    );
  const image = await imageOf(ctx, release);
  const { username, password } = to;
  const pushed = await pushImage({
    image,
    reference: to.reference,
    access: { credentials: username !== null && password !== null ? { username, password } : null },
    signal,
  });
  return { reference: pushed.pinned, sent_bytes: pushed.sent_bytes, skipped_blobs: pushed.skipped };
}

async function imageOf(ctx: ImageContext, release: Release): Promise<MachineImage> {
  if (release.kind !== 'oci')
    throw new KilnError(
      'UNSUPPORTED',
      `The release ${release.id} is no OCI image but a ${release.kind} release. Images come from Dockerfiles, and from builds in docker or microVMs (--isolation).`,
    );
  if (release.collected_at !== null)
    throw new KilnError(
      'ARTIFACT_GONE',
      `The image of ${release.id} was collected by retention; publish again.`,
    );
  return openImage(ctx.objects, `sha256:${release.sha256}`, { images_dir: ctx.folders.images });
}
