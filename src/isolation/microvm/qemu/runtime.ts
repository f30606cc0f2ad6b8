import type { ImageRuntime } from '../../runtime.ts';
import type { MicrovmDriver } from '../driver.ts';
import { type MicrovmRuntimeOptions, microvmRuntime } from '../runtime.ts';

/** Instances in QEMU. `driver` is `qemuDriver` of the same engine, whose self-test counts for both. */
export function qemuRuntime(o: MicrovmRuntimeOptions, driver: MicrovmDriver): ImageRuntime {
  return microvmRuntime('qemu', o, driver);
}
