import { lstat, rename, rm } from 'node:fs/promises';
import { join, posix } from 'node:path';
import type { IsolationDriver, SelfTest } from '../driver.ts';
import type { ImageBuilder, ImageBuildResult, ImageBuildSpec } from '../image-builder.ts';
import { checkImageBuild } from './argv.ts';
import { refuseFrontend } from './frontend.ts';
import { dockerfileInVmScript } from './in-vm.ts';

/** On the machine's own disk, where layers can be mounted. */
const HOME = '/home';
/** In the workspace, because that is what comes back out of a machine. */
const OUT_NAME = '.kiln-image.tar';
/** Small root file systems have none; the guest agent's shell does. */
const MOUNT = 'command -v mount > /dev/null || mount() { /dev/.kiln/busybox mount "$@"; }';
const SECRETS_DIR = '/dev/shm/kiln-secrets';
/** Emulation takes ten times as long as hardware, where the daemon needs two seconds. Seconds. */
const DAEMON_PATIENCE_S = 120;

export interface MicrovmImageBuilderOptions {
  /** A driver whose machines have a kernel of their own, made from a builder image with Docker in it. */
  driver: IsolationDriver;
  /** Where its machines find the proxy of their network policy. */
  proxy_url: string;
  /** Whether the builder image has Docker in it; it is made without on request. */
  has_docker: boolean;
}

/**
 * Dockerfile builds in a fresh virtual machine each: BuildKit and the steps run as root there, and nowhere else. The
 * machine's limits and network policy hold for everything, the fetching of base images included. Layers of earlier
 * builds are not reused: a machine is thrown away with all it has.
 */
export function microvmImageBuilder(o: MicrovmImageBuilderOptions): ImageBuilder {
  const { driver } = o;
  return {
    name: driver.name,
    build: (spec) => build(o, spec),
    async selfTest(): Promise<SelfTest> {
      const test = await driver.selfTest();
      if (!test.ok) return test;
      if (!o.has_docker)
        return {
          ok: false,
          reason: 'the builder image was made without Docker, which brings BuildKit',
          install: 'kiln builder-image build (with the toolchain docker)',
        };
      return { ...test, detail: `BuildKit in a machine of its own: ${test.detail}` };
    },
    // Nothing outlives a machine.
    prune: async () => undefined,
  };
}

async function build(o: MicrovmImageBuilderOptions, spec: ImageBuildSpec): Promise<ImageBuildResult> {
  await checkImageBuild(spec);
  const refused = await refuseFrontend(spec, { network_is_held: true });
  if (refused !== null) return { exit: refused, archive: null };
  const script = dockerfileInVmScript(spec, {
    context_dir: '/workspace',
    scratch_dir: posix.join(HOME, 'docker'),
    secrets_dir: SECRETS_DIR,
    out_file: `/tmp/${OUT_NAME}`,
    proxy_url: spec.network.mode === 'none' ? null : o.proxy_url,
    daemon_patience_s: DAEMON_PATIENCE_S,
  });
  const machine = await o.driver.start({
    id: spec.id,
    kind: 'build',
    workspace_dir: spec.context_dir,
    cwd: '.',
    // The context is not needed any more: only the image comes out.
    command: `${MOUNT}\n${secretFiles(spec.secrets)}\n(\n${script})\nstatus=$?\n${leaveOnlyTheImage()}\nexit $status`,
    env: secretEnvironment(spec.secrets),
    as_root: true,
    limits: spec.limits,
    network: spec.network,
    on_output: spec.on_output,
  });
  const stop = () => void machine.stop(1000);
  spec.signal.addEventListener('abort', stop, { once: true });
  if (spec.signal.aborted) stop();
  const exit = await machine.exited;
  spec.signal.removeEventListener('abort', stop);
  const made = join(spec.context_dir, OUT_NAME);
  if (exit.reason === 'exited' && exit.exit_code === 0 && (await lstat(made)).isFile()) {
    await rename(made, spec.out_file);
    return { exit, archive: 'docker' };
  }
  await rm(made, { force: true });
  return { exit, archive: null };
}

const VARIABLE = 'KILN_BUILD_SECRET_';

/** By number: what a secret is called must not mean anything to the machine's own shell. */
function secretEnvironment(secrets: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.values(secrets).map((value, at) => [`${VARIABLE}${at}`, value]));
}

/** Files in memory, and gone from the environment that the steps would inherit. Names were checked (argv.ts). */
function secretFiles(secrets: Record<string, string>): string {
  const lines = Object.keys(secrets).flatMap((name, at) => [
    `printf %s "$${VARIABLE}${at}" > ${SECRETS_DIR}/${name}`,
    `unset ${VARIABLE}${at}`,
  ]);
  return ['umask 077', `mkdir -p ${SECRETS_DIR}`, ...lines, 'umask 022'].join('\n');
}

function leaveOnlyTheImage(): string {
  return [
    'find /workspace -mindepth 1 -delete',
    `[ "$status" != 0 ] || mv /tmp/${OUT_NAME} /workspace/${OUT_NAME} || status=$?`,
  ].join('\n');
}
