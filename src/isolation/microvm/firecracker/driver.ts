import { join } from 'node:path';
import type { IsolationDriver } from '../../driver.ts';
import { microvmDriver } from '../driver.ts';
import type { MicrovmOptions } from '../options.ts';
import { type FirecrackerOptions, firecrackerHypervisor } from './hypervisor.ts';

export type FirecrackerDriverOptions = MicrovmOptions &
  Pick<FirecrackerOptions, 'binary' | 'jailer' | 'netns'>;

/** Builds in Firecracker. Its self-test boots a machine: that the programs and /dev/kvm are there says little. */
export function firecrackerDriver(o: FirecrackerDriverOptions): IsolationDriver {
  const hypervisor = firecrackerHypervisor({
    ...{ binary: o.binary, jailer: o.jailer, netns: o.netns ?? null },
    search_path: o.host_env.PATH ?? '',
    kernel_dir: join(o.data_dir, 'kernels'),
    // Builds have a proxy each; this one is for instances.
    outbound_socket: null,
  });
  return microvmDriver('firecracker', o, [hypervisor]);
}
