import { execFile } from 'node:child_process';
import { rm, stat } from 'node:fs/promises';
import { promisify } from 'node:util';
import type { ImageBuilder, ImageBuildResult, ImageBuildSpec } from '../image-builder.ts';
import { findProgram } from '../program.ts';
import { buildctlArguments } from './argv.ts';
import { buildForTest } from './docker.ts';
import { runBuild } from './run-build.ts';

const run = promisify(execFile);

export interface BuildctlOptions {
  /** `unix:///run/buildkit/buildkitd.sock`, or `tcp://host:1234` with `tls`. */
  addr: string;
  /** PEM files: who signed the server, and who we are. Required for `tcp://`: BuildKit runs what it is told to. */
  tls?: { ca_file: string; cert_file: string; key_file: string; server_name?: string };
  /** Scratch inside the data folder: secrets of running builds. */
  work_dir: string;
  /** The client program; default: `buildctl` of the system's folders. */
  buildctl?: string;
  /** Folder with the `config.json` that logs in to registries of base images; null (default) for none. */
  config_dir?: string | null;
}

const INSTALL =
  'Install BuildKit: buildctl and a running buildkitd, from https://github.com/moby/buildkit/releases or your distribution.';

/**
 * Dockerfile builds by a buildkitd: on this host, or a pool elsewhere over mutual TLS. Timestamps inside layers are
 * rewritten by BuildKit. The network policy `none` holds for steps; others are for whoever runs the buildkitd to hold.
 */
export function buildctlImageBuilder(o: BuildctlOptions): ImageBuilder {
  const client = o.buildctl ?? findProgram('buildctl');
  const connection = connectionArguments(o);
  const env = {
    ...{ PATH: '/usr/bin:/bin:/usr/local/bin', LC_ALL: 'C.UTF-8' },
    ...(o.config_dir ? { DOCKER_CONFIG: o.config_dir } : {}),
  };

  async function build(spec: ImageBuildSpec): Promise<ImageBuildResult> {
    if (client === null) throw new Error('buildctl is not installed');
    if (/[,"\n]/.test(spec.out_file))
      throw new Error(`${JSON.stringify(spec.out_file)} cannot be named to buildctl`);
    const args = (files: Parameters<typeof buildctlArguments>[1]) => [
      ...connection,
      ...buildctlArguments(spec, files),
    ];
    const exit = await runBuild(o.work_dir, spec, { file: client, args, env });
    if (exit.reason === 'exited' && exit.exit_code === 0) {
      if ((await stat(spec.out_file)).size <= spec.limits.disk_bytes) return { exit, archive: 'oci' };
      exit.reason = 'out_of_disk';
      exit.detail = 'The image is larger than the limit.';
    }
    await rm(spec.out_file, { force: true });
    return { exit, archive: null };
  }

  return {
    name: 'buildctl',
    build,
    async selfTest() {
      if (client === null) return { ok: false, reason: 'buildctl is not installed', install: INSTALL };
      try {
        const { stdout } = await run(client, [...connection, 'debug', 'workers'], { env, timeout: 15_000 });
        const workers = stdout.trim().split('\n').length - 1;
        if (workers < 1)
          return { ok: false, reason: `the buildkitd at ${o.addr} has no worker`, install: null };
      } catch (error) {
        const said = String((error as { stderr?: string }).stderr || error)
          .trim()
          .split('\n')
          .at(-1)!;
        return { ok: false, reason: `no buildkitd answers at ${o.addr}: ${said}`, install: INSTALL };
      }
      return await buildForTest(o.work_dir, build, `buildkitd at ${o.addr}`);
    },
    async prune(max_bytes) {
      if (client === null) return;
      const megabytes = String(Math.floor(max_bytes / 1e6));
      await run(client, [...connection, 'prune', '--all', `--keep-storage=${megabytes}`], {
        env,
        timeout: 600_000,
      });
    },
  };
}

/** @throws Error for an address that is neither, and for TCP without mutual TLS. */
export function connectionArguments(o: Pick<BuildctlOptions, 'addr' | 'tls'>): string[] {
  if (/^unix:\/\/\/./.test(o.addr)) return [`--addr=${o.addr}`];
  if (!/^tcp:\/\/[^/\s]+:\d+$/.test(o.addr))
    throw new Error(`BuildKit is at unix:///path or tcp://host:port, not at ${JSON.stringify(o.addr)}`);
  if (o.tls === undefined)
    throw new Error(
      `BuildKit at ${o.addr} needs a CA, a certificate and a key: whoever reaches it runs code on it`,
    );
  const { ca_file, cert_file, key_file, server_name } = o.tls;
  return [
    ...[`--addr=${o.addr}`, `--tlscacert=${ca_file}`, `--tlscert=${cert_file}`, `--tlskey=${key_file}`],
    ...(server_name === undefined ? [] : [`--tlsservername=${server_name}`]),
  ];
}
