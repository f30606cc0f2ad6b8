import type { Machine, MachineSpec, SelfTest } from '../driver.ts';
import { runForTest } from '../self-test.ts';
import type { Hypervisor } from './hypervisor.ts';
import type { MicrovmOptions } from './options.ts';

/** A guest that KVM runs boots in under a second; where it hangs, nobody should wait long to know. */
const HARDWARE_BOOT_MS = 8000;

export interface Tested {
  result: SelfTest;
  /** The first candidate that works; null when none does. */
  hypervisor: Hypervisor | null;
}

/** Boots a machine on each candidate until one works. That a device can be opened says nothing: its guests may hang. */
export async function testHypervisors(
  o: Pick<MicrovmOptions, 'image' | 'work_dir' | 'allow_emulation'>,
  candidates: readonly Hypervisor[],
  start: (hypervisor: Hypervisor, spec: MachineSpec, boot_ms?: number) => Promise<Machine>,
): Promise<Tested> {
  if (o.image === null) {
    const reason = 'there is no builder image yet';
    return { result: { ok: false, reason, install: 'kiln builder-image build' }, hypervisor: null };
  }
  const reasons: string[] = [];
  let install: string | null = null;
  for (const hypervisor of candidates) {
    const emulated = hypervisor.slowness > 1;
    const label = emulated ? 'software emulation' : 'hardware virtualisation';
    if (emulated && o.allow_emulation !== true) {
      reasons.push('software emulation is not allowed by the settings');
      install ??= 'allow emulation in the settings (slow: minutes instead of seconds), or a host with KVM';
      continue;
    }
    const check = await hypervisor.check();
    if (!check.ok) {
      reasons.push(`${label}: ${check.reason}`);
      install ??= check.install;
      continue;
    }
    const began = performance.now();
    const driver = {
      start: (spec: MachineSpec) => start(hypervisor, spec, emulated ? undefined : HARDWARE_BOOT_MS),
    };
    const said = await runForTest(driver, o.work_dir, 'echo kiln-$((6 * 7)) $(id -u) $(pwd)');
    if (said === 'kiln-42 1000 /workspace') {
      const seconds = ((performance.now() - began) / 1000).toFixed(1);
      const slow = emulated ? '; software emulation, so everything in it takes about ten times as long' : '';
      const why = emulated && reasons.length > 0 ? ` (${reasons.join('; ')})` : '';
      const detail = `a machine with ${label} ran a command ${seconds} s after its start${slow}${why}`;
      return { result: { ok: true, detail, ...(emulated ? { emulated } : {}) }, hypervisor };
    }
    reasons.push(`${label}: ${said}`);
  }
  return { result: { ok: false, reason: reasons.join('; '), install }, hypervisor: null };
}
