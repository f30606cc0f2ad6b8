import type Docker from 'dockerode';
import type { Limits } from '../driver.ts';
import { quoted } from '../shell.ts';
import { LABEL, type Role } from './engine.ts';

/** What containers of machines and instances have in common, as data. */
export interface Shape {
  image_id: string;
  data_key: string;
  role: Role;
  id: string;
  limits: Limits;
  /** Processors at most, fractions allowed; null for all. */
  cpus: number | null;
}

/** As much as the whole machine at normal priority gets for an instance; builds give way. */
const CPU_SHARES = { instance: 1024, machine: 256 } as const;

/**
 * Root inside an image gets what servers need to bind, to own their folders and to give up root; not what opens a
 * way out (devices, raw sockets, mounts, tracing). A user that is not root gets nothing.
 */
const SERVER_CAPABILITIES = [
  ...['NET_BIND_SERVICE', 'CHOWN', 'DAC_OVERRIDE', 'FOWNER', 'SETGID', 'SETUID', 'KILL'],
];

export function containerOptions(
  shape: Shape,
): Docker.ContainerCreateOptions & { HostConfig: Docker.HostConfig } {
  const { limits } = shape;
  const memory_bytes = Math.max(6 * 1024 * 1024, Math.ceil(limits.memory_bytes));
  return {
    name: `kiln-${shape.data_key}-${shape.id}`,
    Image: shape.image_id,
    Labels: { [LABEL.data]: shape.data_key, [LABEL.role]: shape.role, [LABEL.id]: shape.id },
    Hostname: 'kiln',
    AttachStdin: false,
    OpenStdin: false,
    Tty: false,
    HostConfig: {
      Init: true,
      Memory: memory_bytes,
      MemorySwap: memory_bytes,
      // The kernel counts threads: a Node process has about 11. The watchdog counts processes.
      PidsLimit: limits.processes * 16 + 256,
      CpuShares: CPU_SHARES[shape.role],
      ...(shape.cpus === null ? {} : { NanoCpus: Math.round(shape.cpus * 1e9) }),
      CapDrop: ['ALL'],
      SecurityOpt: ['no-new-privileges'],
      Ulimits: [{ Name: 'core', Soft: 0, Hard: 0 }, ...fileSizeLimit(limits)],
      // Docker switches IPv6 off in containers, and with it the loopback address ::1 that apps may bind.
      Sysctls: { 'net.ipv6.conf.all.disable_ipv6': '0', 'net.ipv6.conf.lo.disable_ipv6': '0' },
      IpcMode: 'private',
      RestartPolicy: { Name: 'no' },
      AutoRemove: false,
    },
  };
}

/** No single file over the disk limit. */
function fileSizeLimit({ disk_bytes }: Limits) {
  const bytes = Math.ceil(disk_bytes);
  return Number.isSafeInteger(bytes) ? [{ Name: 'fsize', Soft: bytes, Hard: bytes }] : [];
}

/** Capabilities of an instance, by the user its image names. */
export function instanceCapabilities(user: string | undefined): string[] {
  const name = (user ?? '').split(':')[0]!;
  return ['', 'root', '0'].includes(name) ? SERVER_CAPABILITIES : [];
}

/**
 * The script a machine starts with: goes to the folder and becomes the command, with exactly the given environment.
 * As a file, because arguments and environment of a container are shown by `docker inspect` and in process lists.
 */
export function startScript(o: {
  cwd: string;
  env: Record<string, string>;
  command: string;
  /** Shell lines to run before. */
  before: readonly string[];
}): string {
  const env = Object.entries(o.env).map(([name, value]) => quoted(`${name}=${value}`));
  return [
    ...o.before,
    `cd -- ${quoted(o.cwd)} || exit 126`,
    // At a lower priority than the engine: see `shellArguments` of the drivers that run processes.
    `exec env -i ${env.join(' ')} nice -n 15 /bin/sh -c ${quoted(o.command)}`,
    '',
  ].join('\n');
}

/** The `NAME=value` list of an image as a record. */
export function imageEnvironment(list: readonly string[] | undefined): Record<string, string> {
  const entries = (list ?? []).filter((one) => one.indexOf('=') > 0);
  return Object.fromEntries(
    entries.map((one) => [one.slice(0, one.indexOf('=')), one.slice(one.indexOf('=') + 1)]),
  );
}
