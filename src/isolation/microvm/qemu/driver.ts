import { type MicrovmDriver, microvmDriver } from '../driver.ts';
import type { MicrovmOptions } from '../options.ts';
import { qemuHypervisor } from './hypervisor.ts';

/** Builds in QEMU: with KVM where a guest boots, else in software where that is allowed. */
export function qemuDriver(o: MicrovmOptions): MicrovmDriver {
  const search_path = o.host_env.PATH ?? '';
  const accelerators = ['kvm', 'tcg'] as const;
  return microvmDriver(
    'qemu',
    o,
    accelerators.map((accelerator) => qemuHypervisor({ accelerator, search_path })),
  );
}
