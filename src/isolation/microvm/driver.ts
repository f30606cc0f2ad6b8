import type { Capabilities, IsolationDriver, MachineSpec } from '../driver.ts';
import { makeScanner } from '../processes.ts';
import { forImage, forKind, LINK_FOLDERS, type RegistrySettings, readRegistrySettings } from '../registry.ts';
import { checkSpec } from '../scratch.ts';
import { dataKey, sweepMachines } from '../sweep.ts';
import type { Hypervisor } from './hypervisor.ts';
import type { MicrovmOptions } from './options.ts';
import { keepWarm } from './pool.ts';
import { type Tested, testHypervisors } from './self-test.ts';
import { Start, VCPUS } from './start.ts';
import { openVmHost, type VmHost } from './vm-host.ts';

export interface MicrovmDriver extends IsolationDriver {
  candidates: readonly Hypervisor[];
  /** The self-test, made once: which hypervisor works. */
  tested(): Promise<Tested>;
  /** How many machines are booted and wait for a build. */
  waiting(): number;
}

const CAPABILITIES: Capabilities = {
  hides_host_files: true,
  hides_host_processes: true,
  fixed_workspace_path: true,
  dies_with_engine: true,
  limits_network: true,
  copies_workspace: true,
  own_kernel: true,
};

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
  const rootFiles = async () => (await o.base_image?.squashfs()) ?? [o.image!.rootfs_squashfs];
  let registry: Promise<RegistrySettings> | undefined;

  const hosts = new Map<Hypervisor, VmHost>();
  const openHost = (hypervisor: Hypervisor): VmHost => {
    const { image, work_dir } = o;
    const host =
      hosts.get(hypervisor) ?? openVmHost({ hypervisor, image: image!, data_key, work_dir, search_path });
    hosts.set(hypervisor, host);
    return host;
  };
  const settings = async (kind: MachineSpec['kind']) => {
    registry ??= readRegistrySettings(o);
    return forImage(forKind(await registry, kind), LINK_FOLDERS);
  };
  const startOn = async (host: VmHost, spec: MachineSpec, boot_ms?: number) => {
    await checkSpec(spec, { own_kernel: true });
    const from_host = await settings(spec.kind);
    if (running.has(spec.id)) throw new Error(`machine ${spec.id} is running already`);
    running.add(spec.id);
    const start = new Start({ ...o, rootFiles }, host, spec, from_host, (vm_id) => {
      running.delete(spec.id);
      if (vm_id !== null) running.delete(vm_id);
    });
    return await start.run(boot_ms, keeper.pool());
  };
  let tested: ReturnType<typeof testHypervisors> | undefined;
  const test = () => {
    tested ??= testHypervisors(o, candidates, (hypervisor, spec, boot_ms) =>
      startOn(openHost(hypervisor), spec, boot_ms),
    );
    return tested;
  };
  const around = { warm: o.warm, root: rootFiles, vcpus: o.vcpus ?? VCPUS, ids: running };
  const keeper = keepWarm(around, async () => {
    const { hypervisor } = await test();
    return hypervisor && openHost(hypervisor);
  });

  return {
    name,
    capabilities: CAPABILITIES,
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
    waiting: keeper.waiting,
    warm: keeper.warm,
    close: keeper.close,
    sweep(of) {
      const keep = (id: string) => of.has(id) || running.has(id);
      return sweepMachines({ scanner, data_key, work_dir: o.work_dir, keep });
    },
  };
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
