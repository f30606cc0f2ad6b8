import { createWriteStream } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { arch } from 'node:process';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type Docker from 'dockerode';
import { DOCKER_SOCKET, daemonProblem, dockerMessage, openDocker, socketPath } from '../docker/engine.ts';
import { probeProgram } from '../docker/probe-image.ts';
import type { SelfTest } from '../driver.ts';
import type { ImageBuilder, ImageBuildResult, ImageBuildSpec } from '../image-builder.ts';
import { findProgram } from '../program.ts';
import { dataKey } from '../sweep.ts';
import { dockerBuildArguments } from './argv.ts';
import { explainImageBuild } from './explain.ts';
import { runBuild } from './run-build.ts';
import { testSpec } from './self-test.ts';

export interface DockerImageBuilderOptions {
  data_dir: string;
  /** Scratch inside the data folder: secrets of running builds. */
  work_dir: string;
  /** Path or `unix://…` of the daemon's socket. */
  socket?: string;
  /** The client program; default: the first `docker` of the system's folders. */
  docker?: string;
  /** Folder with the `config.json` that logs in to registries of base images; null (default) for none. */
  config_dir?: string | null;
}

const INSTALL_CLIENT =
  'Install the Docker client (`apt install docker.io`), from version 23 on with its buildx plugin.';

/**
 * Dockerfile builds by the BuildKit inside Docker. It holds no network policy but `none`, and no memory limit of its
 * own: steps are sampled on this host. Where that is not enough, build in a microVM.
 */
export function dockerImageBuilder(o: DockerImageBuilderOptions): ImageBuilder {
  const daemon = openDocker(o.socket);
  const data_key = dataKey(o.data_dir);
  const client = o.docker ?? findProgram('docker');

  async function build(spec: ImageBuildSpec): Promise<ImageBuildResult> {
    if (client === null) throw new Error('the docker client is not installed');
    if (spec.network.mode === 'registries')
      throw new Error(
        'Docker cannot hold a build to a list of registries. Build in a microVM, or set the network policy to `none` or `open`.',
      );
    const tag = `kiln-${data_key}-build:${spec.id}`;
    try {
      const exit = await runBuild(o.work_dir, spec, {
        file: client,
        args: (files) => dockerBuildArguments(spec, files, tag),
        env: {
          ...{ PATH: '/usr/bin:/bin:/usr/local/bin', LC_ALL: 'C.UTF-8', DOCKER_BUILDKIT: '1' },
          DOCKER_HOST: `unix://${socketPath(o.socket ?? DOCKER_SOCKET)}`,
          ...(o.config_dir ? { DOCKER_CONFIG: o.config_dir } : {}),
        },
      });
      if (exit.reason !== 'exited' || exit.exit_code !== 0) return { exit, archive: null };
      const fits = await save(daemon.client(), tag, spec);
      if (fits) return { exit, archive: 'docker' };
      return {
        exit: { ...exit, reason: 'out_of_disk', detail: 'The image is larger than the limit.' },
        archive: null,
      };
    } finally {
      await daemon
        .client()
        .getImage(tag)
        .remove()
        .catch(() => undefined);
    }
  }

  return {
    name: 'docker',
    build,
    async selfTest() {
      if (client === null)
        return { ok: false, reason: 'the docker client is not installed', install: INSTALL_CLIENT };
      const problem = await daemonProblem(daemon);
      if (problem !== null) return problem;
      const { ServerVersion } = await daemon.client().info();
      return await buildForTest(o.work_dir, build, `BuildKit in Docker ${ServerVersion}`);
    },
    async prune(max_bytes) {
      await daemon.client().pruneBuilder({ all: true, 'keep-storage': Math.floor(max_bytes) } as object);
    },
  };
}

/** False, and no file, when the image is larger than the limit on disk space. */
async function save(docker: Docker, tag: string, spec: ImageBuildSpec): Promise<boolean> {
  let bytes = 0;
  const meter = new Transform({
    transform(chunk: Buffer, _, done) {
      bytes += chunk.length;
      if (bytes > spec.limits.disk_bytes) done(new TooLarge());
      else done(null, chunk);
    },
  });
  try {
    await pipeline(
      await docker.getImage(tag).get(),
      meter,
      createWriteStream(spec.out_file, { flags: 'wx' }),
      {
        signal: spec.signal,
      },
    );
    return true;
  } catch (error) {
    await rm(spec.out_file, { force: true });
    if (error instanceof TooLarge) return false;
    throw error;
  }
}

class TooLarge extends Error {}

/** Builds an image from nothing and runs its program as a step. */
export async function buildForTest(
  work_dir: string,
  build: ImageBuilder['build'],
  detail: string,
): Promise<SelfTest> {
  const program = probeProgram(arch);
  if (program === null) return { ok: false, reason: `nobody has tried it on ${arch} yet`, install: null };
  const dir = await mkdtemp(join(work_dir, 'selftest_'));
  let log = '';
  try {
    await writeFile(join(dir, 'works'), program, { mode: 0o755 });
    await writeFile(join(dir, 'Dockerfile'), 'FROM scratch\nCOPY works /works\nRUN ["/works"]\n');
    const { exit, archive } = await build({
      ...testSpec(dir),
      on_output: (_, chunk) => {
        log += chunk.toString('utf8');
      },
    });
    if (archive !== null && /^#\d+ \d+\.\d+ works$/m.test(log)) return { ok: true, detail };
    const why = exit.reason === 'exited' ? explainImageBuild(log).message : exit.reason;
    const install = /buildx component is missing|buildx/i.test(log) ? INSTALL_CLIENT : null;
    return { ok: false, reason: `a test image could not be built: ${why}`, install };
  } catch (error) {
    return { ok: false, reason: `a test image could not be built: ${dockerMessage(error)}`, install: null };
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}
