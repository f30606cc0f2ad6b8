import { chown } from 'node:fs/promises';
import { join, posix } from 'node:path';
import { cacheEnvironment } from '../cache.ts';
import type { CacheFolder, IsolationDriver, Machine, MachineSpec } from '../driver.ts';
import { openEgress } from '../network/egress.ts';
import { readHostNetwork } from '../network/host-network.ts';
import { type Egress, OPEN_NETWORK, proxyEnvironment } from '../network/policy.ts';
import { makeScanner } from '../processes.ts';
import { forKind, type RegistrySettings, readRegistrySettings } from '../registry.ts';
import { checkSpec, removeTree } from '../scratch.ts';
import { dataKey, sweepMachines } from '../sweep.ts';
import { makeOutput, makeScratch, padDrive, returnCache, rootDrives, takeCache } from './drives.ts';
import { namedFiles, packInput } from './exchange.ts';
import { BUILD_USER, type Job, jobFiles } from './guest/job.ts';
import type { Hypervisor, VmDrive, VmSpec } from './hypervisor.ts';
import type { MicrovmOptions } from './options.ts';
import { readSockets, VmRun } from './run.ts';
import { type Tested, testHypervisors } from './self-test.ts';
import { openShortFolder } from './short-path.ts';
import { bootVm, makeVmDir, openVmHost, type VmHost } from './vm-host.ts';

const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const VCPUS = 2;
/** The host's own proxy cannot be reached from a machine; its policy's proxy is set instead. */
const HOST_PROXIES = /^(https?_proxy|all_proxy|no_proxy)$/i;
/** Names a folder of the host that the machine does not have. */
const HOST_FOLDERS = [
  'npm_package_config_node_gyp_nodedir',
  'SSL_CERT_DIR',
  'PIP_FIND_LINKS',
  'UV_FIND_LINKS',
];

export interface MicrovmDriver extends IsolationDriver {
  candidates: readonly Hypervisor[];
  /** The self-test, made once: which hypervisor works. */
  tested(): Promise<Tested>;
}

/**
 * Builds and execs in virtual machines, whatever the hypervisor. Candidates are tried in order, each by booting a real
 * machine; the first that works is used.
 */
export function microvmDriver(
  name: IsolationDriver['name'],
  o: MicrovmOptions,
  candidates: readonly Hypervisor[],
): MicrovmDriver {
  const data_key = dataKey(o.data_dir);
  const search_path = o.host_env.PATH ?? '';
  const scanner = makeScanner();
  const running = new Set<string>();
  let registry: Promise<RegistrySettings> | undefined;

  const hosts = new Map<Hypervisor, VmHost>();
  const openHost = (hypervisor: Hypervisor): VmHost => {
    const known = hosts.get(hypervisor);
    const host =
      known ?? openVmHost({ hypervisor, image: o.image!, data_key, work_dir: o.work_dir, search_path });
    hosts.set(hypervisor, host);
    return host;
  };
  const settings = async (kind: MachineSpec['kind']) => {
    registry ??= readRegistrySettings(o);
    return forKind(await registry, kind);
  };
  const startOn = async (host: VmHost, spec: MachineSpec, boot_ms?: number) => {
    await checkSpec(spec, { own_kernel: true });
    if (running.has(spec.id)) throw new Error(`machine ${spec.id} is running already`);
    running.add(spec.id);
    const start = new Start(o, host, spec, await settings(spec.kind), () => running.delete(spec.id));
    return await start.run(boot_ms);
  };
  let tested: ReturnType<typeof testHypervisors> | undefined;
  const test = () => {
    tested ??= testHypervisors(o, candidates, (hypervisor, spec, boot_ms) =>
      startOn(openHost(hypervisor), spec, boot_ms),
    );
    return tested;
  };

  return {
    name,
    capabilities: {
      hides_host_files: true,
      hides_host_processes: true,
      fixed_workspace_path: true,
      dies_with_engine: true,
      limits_network: true,
      copies_workspace: true,
      own_kernel: true,
    },
    base_image: o.base_image ?? null,
    tested: test,
    candidates,
    selfTest: async () => (await test()).result,
    base: async () => describeImage(o),
    async start(spec) {
      const { hypervisor, result } = await test();
      if (hypervisor === null) throw new Error(result.ok ? 'no hypervisor' : result.reason);
      return await startOn(openHost(hypervisor), spec);
    },
    sweep: (keep) =>
      sweepMachines({
        ...{ scanner, data_key, work_dir: o.work_dir },
        keep: (id) => keep.has(id) || running.has(id),
      }),
  };
}

/** The steps from a spec to a running machine; whatever fails on the way leaves nothing behind. */
class Start {
  readonly o: MicrovmOptions;
  readonly host: VmHost;
  readonly spec: MachineSpec;
  readonly registry: RegistrySettings;
  readonly on_gone: () => void;
  dir = '';
  user: VmSpec['user'] = null;
  egress: Egress | null = null;
  vm_run: VmRun | undefined;

  constructor(
    o: MicrovmOptions,
    host: VmHost,
    spec: MachineSpec,
    registry: RegistrySettings,
    on_gone: () => void,
  ) {
    this.o = o;
    this.host = host;
    this.spec = spec;
    this.registry = registry;
    this.on_gone = on_gone;
  }

  async run(boot_ms?: number): Promise<Machine> {
    const { host, spec, o } = this;
    try {
      ({ dir: this.dir, user: this.user } = await makeVmDir(host, spec.id));
      const { dir, user } = this;
      const { drives, output_bytes } = await this.makeDrives();
      await this.openEgress();
      const egress_socket = join(dir, 'egress.sock');
      const run = new VmRun({
        ...{ host, spec, dir, open_output: readSockets },
        workspace: {
          unpack: o.unpack,
          dir: spec.workspace_dir,
          bytes: output_bytes,
          path: join(dir, 'output.img'),
        },
        ...{ egress: this.egress, cache: this.cache(), on_gone: this.on_gone },
      });
      this.vm_run = run;
      const booted = await bootVm(host, {
        ...{
          id: spec.id,
          dir,
          user,
          drives,
          vcpus: o.vcpus ?? VCPUS,
          memory_bytes: spec.limits.memory_bytes,
        },
        channels: (['control', 'stdout', 'stderr'] as const).map((name) => ({ name, to: 'socket' })),
        network: this.egress === null ? { kind: 'none' } : { kind: 'egress', socket_path: egress_socket },
        ...{
          max_file_bytes: output_bytes + (this.cache()?.max_bytes ?? 0),
        },
        ...{ survives_engine: false, ...(boot_ms === undefined ? {} : { boot_ms }) },
        on_event: (event) => run.on(event),
      });
      run.vm = booted.vm;
      return await run.start(booted);
    } catch (error) {
      await this.clear();
      const why = error instanceof Error ? error.message : String(error);
      throw new Error(`machine ${spec.id} could not be started: ${why}`, { cause: error });
    }
  }

  async makeDrives(): Promise<{ drives: VmDrive[]; output_bytes: number }> {
    const { o, spec, dir, user } = this;
    const path = (name: string) => join(dir, `${name}.img`);
    const files = jobFiles(await this.job());
    const input_bytes = await packInput({
      ...{ pack: o.pack, workspace_dir: spec.workspace_dir, files, out_path: path('input') },
    });
    await padDrive(path('input'), user);
    const scratch_bytes = await makeScratch(path('scratch'), input_bytes + spec.limits.disk_bytes, user);
    const output_bytes = await makeOutput(path('output'), scratch_bytes, user);
    const folder = this.cache();
    const cache = folder ? await takeCache(folder, dir, user) : null;
    const root = (await o.base_image?.squashfs()) ?? [o.image!.rootfs_squashfs];
    const drives: VmDrive[] = [
      ...rootDrives(root),
      { name: 'scratch', path: path('scratch'), read_only: false },
      { name: 'input', path: path('input'), read_only: true },
      { name: 'output', path: path('output'), read_only: false },
      ...(cache === null ? [] : [cache]),
    ];
    return { drives, output_bytes };
  }

  async job(): Promise<Job> {
    const { spec, registry, host } = this;
    const networked = this.hasNetwork();
    const env = Object.entries(registry.env).filter(
      ([name]) => !HOST_FOLDERS.includes(name) && !HOST_PROXIES.test(name),
    );
    return {
      kind: 'workspace',
      run: { shell: spec.command },
      cwd: posix.join('/workspace', spec.cwd),
      env: {
        ...{ PATH, HOME: '/home', TMPDIR: '/tmp', LANG: 'C.UTF-8' },
        ...Object.fromEntries(env),
        ...(networked ? withEgress(host.hypervisor.egress_url) : {}),
        ...(this.cache() ? cacheEnvironment('/cache') : {}),
        ...spec.env,
      },
      user: spec.as_root ? '0:0' : BUILD_USER,
      network: networked ? 'egress' : 'none',
      limits: spec.limits,
      log_bytes: null,
      read_only_root: false,
      host_name: 'kiln',
      home_files: registry.files,
      root_files: await namedFiles(registry),
    };
  }

  /** Also with policy `none`: its proxy refuses everything, and what was refused is in the log. */
  hasNetwork(): boolean {
    return this.spec.kind !== 'instance';
  }

  cache(): CacheFolder | null {
    return this.spec.kind === 'build' ? (this.spec.cache ?? null) : null;
  }

  async openEgress(): Promise<void> {
    const { o, spec, dir, user, registry } = this;
    if (!this.hasNetwork()) return;
    const folder = openShortFolder(dir);
    const socket_path = folder.path('egress.sock');
    const egress = await openEgress({
      policy: spec.network ?? OPEN_NETWORK,
      socket_path,
      host: readHostNetwork(o.host_env, registry),
      on_refused: (line) => tell(spec, line),
    }).catch((error: unknown) => {
      folder.close();
      throw error;
    });
    this.egress = {
      ...egress,
      contacts: () => egress.contacts(),
      close: async () => {
        await egress.close();
        folder.close();
      },
    };
    if (user !== null) await chown(socket_path, user.uid, user.gid);
  }

  async clear(): Promise<void> {
    const { dir } = this;
    if (this.vm_run?.vm !== undefined) return await this.vm_run.clear();
    await this.egress?.close().catch(() => undefined);
    const cache = this.cache();
    if (cache) await returnCache(cache, dir);
    await removeTree(dir);
    this.on_gone();
  }
}

/** The proxy is not on the machine's loopback: who speaks to it must not be sent to it through itself. */
function withEgress(url: string): Record<string, string> {
  const env = proxyEnvironment(url);
  const { hostname } = new URL(url);
  for (const name of ['no_proxy', 'NO_PROXY', 'npm_config_noproxy'])
    if (env[name] !== undefined) env[name] += `,${hostname}`;
  return env;
}

/** A log must never change the outcome (I12). */
function tell(spec: MachineSpec, line: string): void {
  try {
    spec.on_output('stderr', Buffer.from(`[kiln] ${line}\n`));
  } catch {
    // Not our business.
  }
}

/** Stable text: what a release built in this image runs on. */
function describeImage(o: MicrovmOptions): string {
  if (o.image === null) return 'no builder image';
  const { libc, tools, digest } = o.image;
  const named = tools.map(
    ({ name, version }) =>
      `${name}-${version
        .split('.')
        .slice(0, name === 'node' ? 1 : 2)
        .join('.')}`,
  );
  const root = o.base_image?.digest.slice('sha256:'.length) ?? digest;
  return ['linux-x64', libc, ...named, `image-${root.slice(0, 12)}`, 'workspace-fixed'].join(';');
}
