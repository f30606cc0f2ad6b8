import { posix } from 'node:path';
import type { ImageBuildSpec } from '../image-builder.ts';
import { quoted } from '../shell.ts';
import { dockerBuildArguments, scopeOf } from './argv.ts';

/** Where things are inside the microVM that builds. */
export interface DockerInVm {
  /** The source. */
  context_dir: string;
  /** On the scratch disk, empty: the daemon's images and layers. */
  scratch_dir: string;
  /** Folder with a file per secret, named like it; in memory. */
  secrets_dir: string;
  /** Where the image goes, as `docker save` writes it; its folder exists. */
  out_file: string;
  /** The machine's way to the network as seen from its own loopback, null for none. */
  proxy_url: string | null;
  /** How long the daemon may take until it answers. Seconds. */
  daemon_patience_s: number;
}

const TAG = 'kiln-build:image';

/**
 * The build of a Dockerfile as a POSIX shell script for a machine that has Docker's daemon and client and is root in a
 * kernel of its own. The daemon is the machine's, gone with it; so the build itself needs no sandbox, and the machine's
 * limits and network policy hold for all of it. Nothing of the spec reaches the shell unquoted.
 *
 * Exits with the build's own status; 70 when the daemon does not start, with its last words.
 */
export function dockerfileInVmScript(
  spec: Pick<
    ImageBuildSpec,
    'id' | 'dockerfile' | 'target' | 'build_args' | 'secrets' | 'source_date_epoch' | 'network' | 'cache_key'
  >,
  vm: DockerInVm,
): string {
  const { data, exec, socket, log } = daemonPaths(vm);
  const secrets = Object.fromEntries(
    Object.keys(spec.secrets).map((name) => [name, posix.join(vm.secrets_dir, name)]),
  );
  // Steps reach the proxy, which listens on the machine's loopback, only from the machine's own network.
  const with_network = spec.network.mode !== 'none' && vm.proxy_url !== null;
  const build = dockerBuildArguments(
    {
      ...spec,
      context_dir: vm.context_dir,
      network: { mode: with_network ? spec.network.mode : 'none', allow: [] },
    },
    { secrets, scope: scopeOf(spec) },
    TAG,
  );
  if (with_network) build.splice(1, 0, '--network=host', ...proxyArguments(vm.proxy_url!));
  const words = (args: readonly string[]) => args.map(quoted).join(' ');
  return `${[
    'set -eu',
    'export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    `export DOCKER_HOST=${quoted(`unix://${socket}`)} DOCKER_BUILDKIT=1 LC_ALL=C.UTF-8 HOME=${quoted(vm.scratch_dir)}`,
    ...(with_network ? [`export ${proxyWords(vm.proxy_url!)}`] : []),
    `mkdir -p ${words([data, exec])}`,
    mountCgroups(),
    // overlay2 needs a file system with d_type that is no overlay itself; vfs copies, slowly, but works anywhere.
    'driver=vfs',
    `if grep -q overlay /proc/filesystems && [ "$(stat -f -c %T ${quoted(vm.scratch_dir)})" != overlayfs ]; then driver=overlay2; fi`,
    `dockerd ${words(['--data-root', data, '--exec-root', exec, '--host', `unix://${socket}`])} \\`,
    `  ${words(['--pidfile', posix.join(exec, 'pid'), '--bridge=none', '--iptables=false', '--ip6tables=false'])} \\`,
    `  --storage-driver "$driver" > ${quoted(log)} 2>&1 < /dev/null &`,
    'daemon=$!',
    'tries=0',
    'until docker version > /dev/null 2>&1; do',
    '  tries=$((tries + 1))',
    `  if ! kill -0 "$daemon" 2> /dev/null || [ "$tries" -gt ${Math.ceil(vm.daemon_patience_s) * 5} ]; then`,
    `    echo '[kiln] the Docker daemon of the build machine did not start:' >&2; tail -n 20 ${quoted(log)} >&2; exit 70`,
    '  fi',
    '  sleep 0.2',
    'done',
    'status=0',
    `docker ${words(build)} || status=$?`,
    `[ "$status" != 0 ] || docker ${words(['save', '--output', vm.out_file, TAG])} || status=$?`,
    'kill "$daemon" 2> /dev/null || true',
    'wait "$daemon" 2> /dev/null || true',
    'exit "$status"',
  ].join('\n')}\n`;
}

function daemonPaths(vm: DockerInVm) {
  return {
    data: posix.join(vm.scratch_dir, 'docker'),
    exec: posix.join(vm.scratch_dir, 'docker-exec'),
    // A socket's path has at most 107 bytes.
    socket: '/run/kiln-docker.sock',
    log: posix.join(vm.scratch_dir, 'dockerd.log'),
  };
}

/** Docker needs control groups, which a small init does not mount. */
function mountCgroups(): string {
  return 'mkdir -p /run /sys/fs/cgroup; mountpoint -q /sys/fs/cgroup || mount -t cgroup2 cgroup2 /sys/fs/cgroup';
}

const PROXY_NAMES = ['http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY'];

/** Arguments that BuildKit gives to every step without a word in the Dockerfile, and leaves out of the cache's keys. */
function proxyArguments(url: string): string[] {
  return PROXY_NAMES.map((name) => `--build-arg=${name}=${url}`);
}

/** For the daemon, which fetches base images. */
function proxyWords(url: string): string {
  return PROXY_NAMES.map((name) => `${name}=${quoted(url)}`).join(' ');
}
