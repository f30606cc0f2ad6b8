import { mkdir, realpath, writeFile } from 'node:fs/promises';
import { join, posix } from 'node:path';
import { describeBase } from '../base.ts';
import { cacheEnvironment } from '../cache.ts';
import type { DriverOptions, IsolationDriver, MachineSpec } from '../driver.ts';
import { openHost, type Prepared } from '../host.ts';
import { startMachine } from '../machine.ts';
import { withMovedPort } from '../moved-port/moved-port.ts';
import { FETCH_PROXY, heldBack, NODE_INSIDE, openOutlet, withProxy } from '../network/outlet.ts';
import { findProgram } from '../program.ts';
import { machinePath } from '../toolchain.ts';
import { bubblewrapLaunch, bubblewrapOptions, type UserNamespace } from './launch.ts';
import { hostMounts, procEntries } from './mounts.ts';
import { selfTest } from './self-test.ts';

/** Names for the machine's one user; the host's accounts stay unknown. */
const PASSWD = 'root:x:0:0:root:/home:/bin/sh\napp:x:1000:1000:app:/home:/bin/sh\n';
const GROUP = 'root:x:0:\napp:x:1000:\n';
/** Where a machine sees what moves its port. */
const PRELOADS_INSIDE = '/kiln/moved-port';
const NSSWITCH = 'passwd: files\ngroup: files\nhosts: files dns\n';

/**
 * Runs machines under bubblewrap: own pid, ipc, uts, mount and user namespaces, no capabilities, no new
 * privileges, and of the host's files only the system and toolchains, read-only. Works for root and, where the
 * kernel allows user namespaces, for every user. Builds and execs have a network of their own with nothing in it
 * but the policy's proxy. Instances are servers behind the edge and share the host's network; so they could reach
 * loopback services and abstract sockets, which is why those of the engine ask for a key.
 */
export function bubblewrapDriver(o: DriverOptions): IsolationDriver {
  const host = openHost(o);

  async function launch(spec: MachineSpec, user_namespace: UserNamespace, prepared: Prepared) {
    const bwrap = findProgram('bwrap', host.search_path);
    if (bwrap === null) throw new Error('bwrap is not installed');
    const { private_dir, tools, registry, network, marks, limit_arguments, preload_dir } = prepared;
    const outlet = spec.kind === 'instance' ? null : await openOutlet(spec, network);
    const mounts = hostMounts({
      tools,
      extra: registry.paths,
      generated: await writeAccounts(private_dir),
      data_dir: await realpath(o.data_dir),
    });
    const cache = spec.kind === 'build' ? (spec.cache ?? null) : null;
    const node = tools.find((tool) => tool.name === 'node')?.version ?? null;
    if (outlet !== null)
      mounts.push(
        { kind: 'read', from: process.execPath, to: NODE_INSIDE },
        { kind: 'read', ...FETCH_PROXY },
      );
    if (preload_dir !== null) mounts.push({ kind: 'read', from: preload_dir, to: PRELOADS_INSIDE });
    const env = {
      PATH: machinePath(tools, host.search_path),
      HOME: '/home',
      TMPDIR: '/tmp',
      LANG: 'C.UTF-8',
      ...registry.env,
      ...(cache === null ? {} : cacheEnvironment('/cache')),
      ...(preload_dir === null ? spec.env : withMovedPort(spec.env, spec.moved_port!, PRELOADS_INSIDE)),
    };
    const options = bubblewrapOptions({
      user_namespace,
      mounts,
      proc_entries: procEntries(),
      workspace_dir: spec.workspace_dir,
      private_dir,
      cwd: posix.join('/workspace', spec.cwd),
      cache_dir: cache?.dir ?? null,
      own_network: outlet !== null,
      env: outlet === null ? env : heldBack(withProxy(env, node)),
    });
    return bubblewrapLaunch({ bwrap, spec, options, marks, limit_arguments, outlet });
  }

  const startWith = (spec: MachineSpec, user_namespace: UserNamespace) =>
    startMachine(host, spec, (prepared) => launch(spec, user_namespace, prepared));
  let tested: ReturnType<typeof selfTest> | undefined;
  const test = () => {
    tested ??= selfTest(o, startWith);
    return tested;
  };

  return {
    name: 'bubblewrap',
    capabilities: {
      hides_host_files: true,
      hides_host_processes: true,
      fixed_workspace_path: true,
      dies_with_engine: true,
      limits_network: true,
      copies_workspace: false,
    },
    selfTest: async () => (await test()).result,
    base: () => describeBase(host.search_path, host.answers, 'fixed'),
    start: async (spec) => await startWith(spec, (await test()).user_namespace),
    tools: host.tools,
    sweep: host.sweep,
  };
}

/** Account files that the machine sees in place of the host's; target path to the file written for it. */
async function writeAccounts(private_dir: string): Promise<Record<string, string>> {
  const texts = { passwd: PASSWD, group: GROUP, 'nsswitch.conf': NSSWITCH };
  await mkdir(join(private_dir, 'etc'), { mode: 0o700 });
  const written: Record<string, string> = {};
  for (const [name, text] of Object.entries(texts)) {
    written[`/etc/${name}`] = join(private_dir, 'etc', name);
    await writeFile(written[`/etc/${name}`]!, text, { mode: 0o644 });
  }
  return written;
}
