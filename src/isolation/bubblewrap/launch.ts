import type { MachineSpec } from '../driver.ts';
import { type Launch, shellArguments } from '../machine.ts';
import type { Outlet } from '../network/outlet.ts';
import type { Mount } from './mounts.ts';

/** Which user namespace bubblewrap makes; the self-test finds the strongest that works here. */
export type UserNamespace = 'sealed' | 'plain' | 'none';

const NAMESPACE_ARGUMENTS: Record<UserNamespace, string[]> = {
  // The machine's user is 1000 whoever runs the engine, and can make no further user namespaces.
  sealed: ['--unshare-user', '--disable-userns', '--uid', '1000', '--gid', '1000'],
  plain: ['--unshare-user', '--uid', '1000', '--gid', '1000'],
  none: [],
};

/** What Docker gives /dev/shm: its pages count as nobody's memory, so it has to be small. */
const SHM_BYTES = 64 * 1024 * 1024;

/**
 * bubblewrap's options for one machine. The network is its own, or, for instances, the host's: they listen on the
 * loopback ports that the edge connects to. Everything else is the machine's own or read-only.
 */
export function bubblewrapOptions(o: {
  user_namespace: UserNamespace;
  mounts: readonly Mount[];
  proc_entries: readonly string[];
  workspace_dir: string;
  private_dir: string;
  cwd: string;
  cache_dir: string | null;
  /** Then nothing is in it but loopback; abstract sockets of the host cannot be reached either. */
  own_network: boolean;
  env: Record<string, string>;
}): string[] {
  return [
    ...NAMESPACE_ARGUMENTS[o.user_namespace],
    ...(o.own_network ? ['--unshare-net'] : []),
    ...['--unshare-pid', '--unshare-ipc', '--unshare-uts', '--unshare-cgroup-try'],
    ...['--die-with-parent', '--new-session', '--cap-drop', 'ALL', '--hostname', 'kiln'],
    ...o.mounts.flatMap(mountOptions),
    ...['--proc', '/proc'],
    // A machine started by root writes with root's identity on the host, which needs no capability to change
    // kernel settings (core_pattern runs a program of choice as root): everything but the process folders is
    // read-only. bubblewrap itself covers these only when it runs without a user namespace.
    ...o.proc_entries.flatMap((path) => ['--ro-bind', path, path]),
    ...['--dev', '/dev', '--size', String(SHM_BYTES), '--tmpfs', '/dev/shm', '--remount-ro', '/dev'],
    ...['--bind', `${o.private_dir}/tmp`, '/tmp', '--bind', `${o.private_dir}/home`, '/home'],
    ...(o.cache_dir === null ? [] : ['--bind', o.cache_dir, '/cache']),
    ...['--bind', o.workspace_dir, '/workspace', '--chdir', o.cwd, '--remount-ro', '/', '--clearenv'],
    ...Object.entries(o.env).flatMap(([name, value]) => ['--setenv', name, value]),
  ];
}

function mountOptions(mount: Mount): string[] {
  switch (mount.kind) {
    case 'read':
      return ['--ro-bind', mount.from, mount.to];
    case 'link':
      return ['--symlink', mount.from, mount.to];
    case 'hide':
      return ['--tmpfs', mount.to, '--remount-ro', mount.to];
  }
}

/**
 * The launch: limits, then bubblewrap, with its options on fd 4. They hold the app's environment, which must not
 * be seen in the process list, nor be the environment of bubblewrap itself (LD_PRELOAD would run on the host).
 */
export function bubblewrapLaunch(o: {
  bwrap: string;
  spec: MachineSpec;
  options: string[];
  marks: Record<string, string>;
  limit_arguments: string[];
  outlet: Outlet | null;
}): Launch {
  const [file, ...args] = [
    ...o.limit_arguments,
    o.bwrap,
    ...['--args', '4', '--'],
    ...shellArguments(o.spec, o.outlet),
  ] as [string, ...string[]];
  return {
    file,
    args,
    env: { PATH: '/usr/bin:/bin', ...o.marks },
    cwd: '/',
    input: o.options.map((option) => `${option}\0`).join(''),
    pid_namespace: true,
    outlet: o.outlet,
  };
}
