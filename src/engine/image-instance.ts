/** The machine behind an instance of an OCI release: its image, its ports, and finding it again after a restart. */
import type { Instance } from '../domain/instance.ts';
import type { Release } from '../domain/release.ts';
import type { Version } from '../domain/version.ts';
import type { Limits, Machine } from '../isolation/driver.ts';
import { openImage } from '../release/oci/image.ts';
import type { LogWriter } from '../store/logs.ts';
import type { EngineContext } from './context.ts';

/** Where an app listens that says nothing: what most images and frameworks take. */
const DEFAULT_APP_PORT = 8080;

export function appPort(version: Version, release: Release): number {
  return version.run_settings?.port ?? release.port ?? release.manifest.exposed_port ?? DEFAULT_APP_PORT;
}

export async function startImage(
  ctx: EngineContext,
  of: {
    instance: Instance;
    version: Version;
    release: Release;
    env: Record<string, string>;
    host_port: number;
    limits: Limits;
    log: LogWriter;
  },
): Promise<Machine> {
  const { instance, version, release, host_port, limits, log } = of;
  if (ctx.runtime === null) throw new Error(`nothing here runs images. ${ctx.images_missing}`);
  const guest_port = appPort(version, release);
  log.note(
    `starting image sha256:${release.sha256.slice(0, 12)} in ${ctx.runtime.name}, port ${guest_port} on ${host_port}`,
  );
  const image = await openImage(ctx.objects, `sha256:${release.sha256}`, {
    images_dir: ctx.folders.images,
    base: ctx.builder.base_image ?? null,
  });
  return ctx.runtime.start({
    id: instance.id,
    deployment_id: version.deployment_id,
    image,
    command: null,
    env: {
      KILN_DEPLOYMENT_ID: version.deployment_id,
      KILN_VERSION_ID: version.id,
      ...of.env,
      PORT: String(guest_port),
    },
    host_port,
    guest_port,
    limits,
    read_only_root: false,
    on_output: (stream, chunk) => log.write(stream, chunk),
  });
}

/** The machine of an instance that went on while no engine was there; null when it did not. */
export async function adoptImage(
  ctx: EngineContext,
  of: { instance: Instance; version: Version; release: Release; limits: Limits; log: LogWriter },
): Promise<Machine | null> {
  const { instance, version, release, limits, log } = of;
  if (!ctx.runtime?.survives_engine || release.kind !== 'oci' || instance.port === null) return null;
  return ctx.runtime.adopt({
    id: instance.id,
    host_port: instance.port,
    guest_port: appPort(version, release),
    limits,
    logs_since: instance.updated_at,
    on_output: (stream, chunk) => log.write(stream, chunk),
  });
}
