import { createHash } from 'node:crypto';
import { realpath } from 'node:fs/promises';
import { isAbsolute, join, posix } from 'node:path';
import type { ImageBuildSpec } from '../image-builder.ts';
import { isInside } from '../scratch.ts';

const NAME = /^[A-Za-z_][A-Za-z0-9_.-]*$/;

/** What of a spec shows in `docker`'s words. */
export type BuildInput = Pick<
  ImageBuildSpec,
  'context_dir' | 'dockerfile' | 'target' | 'build_args' | 'source_date_epoch' | 'network' | 'cache_key'
>;

/** What both command lines are made from, besides the spec. */
export interface BuildFiles {
  /** Files with the secrets' values, by name. */
  secrets: Record<string, string>;
  /** By it the cache of one deployment is kept apart, and its steps' processes are found: see `scopeOf`. */
  scope: string;
}

/**
 * Caches are shared by everybody who uses a BuildKit, and a step's cached result does not depend on the secrets it
 * read. So every step gets a host name of its deployment (part of what its result is cached by), and every cache
 * mount a namespace. Without a key the name is the build's own, and nothing is reused.
 */
export function scopeOf(spec: Pick<ImageBuildSpec, 'cache_key' | 'id'>): string {
  const text = spec.cache_key === null ? `build ${spec.id}` : `cache ${spec.cache_key}`;
  return createHash('sha256').update(text).digest('hex').slice(0, 24);
}

export function scopeHost(scope: string): string {
  return `${scope}.build.kiln.invalid`;
}

/**
 * @throws Error when the Dockerfile is outside the context (a link may lead to any file of the host, whose lines the
 * parser would print), or a name would end an argument early.
 */
export async function checkImageBuild(spec: ImageBuildSpec): Promise<void> {
  const { dockerfile, context_dir } = spec;
  const inside = !isAbsolute(dockerfile) && isInside(context_dir, join(context_dir, dockerfile));
  if (!inside) throw new Error(`the Dockerfile ${JSON.stringify(dockerfile)} is outside the source`);
  const real = await realpath(join(context_dir, dockerfile)).catch(() => null);
  if (real !== null && !isInside(await realpath(context_dir), real))
    throw new Error(`the Dockerfile ${JSON.stringify(dockerfile)} is a link that leads out of the source`);
  for (const name of [...Object.keys(spec.build_args), ...Object.keys(spec.secrets)])
    if (!NAME.test(name))
      throw new Error(`${JSON.stringify(name)} is no name for a build argument or secret`);
  for (const value of [...Object.values(spec.build_args), spec.target ?? '', dockerfile])
    if (value.includes('\0')) throw new Error('a build argument holds a NUL character');
  if (spec.target !== null && !/^[A-Za-z0-9][\w.-]*$/.test(spec.target))
    throw new Error(`${JSON.stringify(spec.target)} is no name of a stage`);
}

function buildArguments(spec: BuildInput, scope: string): [string, string][] {
  return Object.entries({
    ...spec.build_args,
    SOURCE_DATE_EPOCH: String(spec.source_date_epoch),
    BUILDKIT_CACHE_MOUNT_NS: scope,
  });
}

/** `docker …` for the BuildKit that is embedded in Docker; the image gets the name `tag`. */
export function dockerBuildArguments(spec: BuildInput, files: BuildFiles, tag: string): string[] {
  return [
    ...['build', '--progress=plain', `--tag=${tag}`],
    `--file=${posix.join(spec.context_dir, spec.dockerfile)}`,
    ...(spec.target === null ? [] : [`--target=${spec.target}`]),
    ...buildArguments(spec, files.scope).map(([name, value]) => `--build-arg=${name}=${value}`),
    ...Object.entries(files.secrets).map(([name, file]) => `--secret=id=${name},src=${file}`),
    `--add-host=${scopeHost(files.scope)}:127.0.0.1`,
    ...(spec.cache_key === null ? ['--no-cache'] : []),
    ...(spec.network.mode === 'none' ? ['--network=none'] : []),
    ...['--', spec.context_dir],
  ];
}

/** `buildctl … build …`; the image goes to `out_file` as an OCI layout. */
export function buildctlArguments(spec: ImageBuildSpec, files: BuildFiles): string[] {
  const dir = posix.join(spec.context_dir, posix.dirname(spec.dockerfile));
  return [
    ...['build', '--progress=plain', '--frontend=dockerfile.v0'],
    ...[`--local=context=${spec.context_dir}`, `--local=dockerfile=${dir}`],
    `--opt=filename=${posix.basename(spec.dockerfile)}`,
    ...(spec.target === null ? [] : [`--opt=target=${spec.target}`]),
    ...buildArguments(spec, files.scope).map(([name, value]) => `--opt=build-arg:${name}=${value}`),
    ...Object.entries(files.secrets).map(([name, file]) => `--secret=id=${name},src=${file}`),
    `--opt=add-hosts=${scopeHost(files.scope)}=127.0.0.1`,
    ...(spec.cache_key === null ? ['--no-cache'] : []),
    ...(spec.network.mode === 'none' ? ['--opt=force-network-mode=none'] : []),
    `--output=type=oci,dest=${spec.out_file},rewrite-timestamp=true`,
  ];
}
