import { chmod, chown, mkdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import type { Vm, VmSpec } from '../hypervisor.ts';
import type { FirecrackerHypervisor } from './hypervisor.ts';
import { insideName } from './launch.ts';

/**
 * Warm starts from a snapshot: a VM is booted once, up to where its agent waits for a job, paused, and written out;
 * others start from that in the time it takes to map its memory.
 *
 * What is in the snapshot is in every VM made from it: the state of the random generator, boot ids, keys and tokens
 * that a program made before. So
 * - a snapshot is taken before any tenant's data is in the VM, and the VM it was taken from never runs again;
 * - a VM made from it is used for one build, like any other;
 * - the guest must take fresh randomness before it does anything: the driver sends some with the job, and the agent
 *   feeds it to the generator and makes it reseed (RNDADDENTROPY, RNDRESEEDCRNG) before anything else runs. Linux from 5.18 with CONFIG_VMGENID does so by itself when it is resumed; Debian 12's kernels are without it;
 * - its clock stands still meanwhile, and has to be set as well.
 * Where the guest has no such part, do not use snapshots: a pool of booted VMs is as warm, and none is another's twin.
 *
 * Its drives are the snapshot's by name only: files of the same size lie behind them, with the content that the guest
 * has not cached yet. Drives that the guest had mounted must hold the very same bytes as when it was taken.
 */
export interface Snapshot {
  /** Of the VMM and the devices. */
  state: string;
  memory: string;
}

/** Pauses the VM, writes it out into `into` (a new folder), and ends it. */
export async function takeSnapshot(
  hypervisor: FirecrackerHypervisor,
  vm: Vm,
  spec: VmSpec,
  into: string,
): Promise<Snapshot> {
  const running = hypervisor.running(vm);
  if (running === null) throw new Error('a snapshot needs a VM that this engine started');
  if (spec.max_file_bytes < spec.memory_bytes)
    throw new Error('a snapshot needs a limit on files (max_file_bytes) of at least the memory of the VM');
  const { client, plan } = running;
  try {
    await client.pause();
    await client.createSnapshot({
      ...{ snapshot_type: 'Full', snapshot_path: insideName(plan, 'fc-new-state') },
      mem_file_path: insideName(plan, 'fc-new-memory'),
    });
    await mkdir(into, { mode: 0o755 });
    const snapshot = { state: join(into, 'state'), memory: join(into, 'memory') };
    for (const name of ['state', 'memory'] as const) {
      await rename(join(plan.root, `fc-new-${name}`), snapshot[name]);
      // It belonged to the user of this VM, and is to be linked into the jails of others.
      await chown(snapshot[name], process.getuid!(), process.getgid!());
      await chmod(snapshot[name], 0o644);
    }
    return snapshot;
  } finally {
    vm.kill();
    await vm.exited;
  }
}
