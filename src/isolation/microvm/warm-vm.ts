import { createReadStream, createWriteStream } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { removeTree } from '../scratch.ts';
import { makeOutput, makeScratch, makeSparse, rootDrives } from './drives.ts';
import type { GuestEvent } from './guest/protocol.ts';
import type { VmDrive, VmSpec } from './hypervisor.ts';
import { type BootedVm, bootVm, endVm, makeVmDir, type VmHost } from './vm-host.ts';

/** What is settled when a VM boots. A job that needs anything else boots a VM of its own. */
export interface WarmShape {
  memory_bytes: number;
  disk_bytes: number;
  /** Most that the job and its source may be. */
  input_bytes: number;
  /** Of the cache drive; 0: there is none. */
  cache_bytes: number;
}

/** A VM whose agent waits for a job. Its input and cache drives are empty files, filled before it is told to go. */
export interface WarmVm {
  id: string;
  dir: string;
  user: VmSpec['user'];
  output_bytes: number;
  booted: BootedVm;
  /** Hears what the guest says, once somebody has taken it. */
  on_event: (event: GuestEvent) => void;
}

/** @throws what keeps it from booting; then nothing of it is left */
export async function bootWarmVm(o: {
  host: VmHost;
  id: string;
  shape: WarmShape;
  root: () => Promise<string[]>;
  vcpus: number;
}): Promise<WarmVm> {
  const { host, id, shape } = o;
  const { dir, user } = await makeVmDir(host, id);
  try {
    const path = (name: string) => join(dir, `${name}.img`);
    await makeSparse(path('input'), shape.input_bytes, user);
    const scratch_bytes = await makeScratch(path('scratch'), shape.input_bytes + shape.disk_bytes, user);
    const output_bytes = await makeOutput(path('output'), scratch_bytes, user);
    if (shape.cache_bytes > 0) await makeSparse(path('cache'), shape.cache_bytes, user);
    const drive = (name: VmDrive['name'], read_only = false) => ({ name, path: path(name), read_only });
    const vm = {
      id,
      dir,
      user,
      output_bytes,
      on_event: (_: GuestEvent) => {},
    };
    const booted = await bootVm(host, {
      id,
      dir,
      user,
      vcpus: o.vcpus,
      memory_bytes: shape.memory_bytes,
      drives: [
        ...rootDrives(await o.root()),
        ...[drive('scratch'), drive('input', true), drive('output')],
        ...(shape.cache_bytes > 0 ? [drive('cache')] : []),
      ],
      channels: (['control', 'stdout', 'stderr'] as const).map((name) => ({ name, to: 'socket' })),
      // The proxy is there once a job is: until then whoever asks for it is refused.
      network: { kind: 'egress', socket_path: join(dir, 'egress.sock') },
      max_file_bytes: output_bytes + shape.cache_bytes,
      survives_engine: false,
      on_event: (event) => vm.on_event(event),
    });
    return Object.assign(vm, { booted });
  } catch (error) {
    await removeTree(dir);
    throw error;
  }
}

/** Puts a job's tar on the drive of a VM that has the drive open already: into the same file, not in its place. */
export async function fillInput(tar: string, vm: Pick<WarmVm, 'dir'>): Promise<void> {
  const into = createWriteStream(join(vm.dir, 'input.img'), { flags: 'r+', highWaterMark: 1 << 20 });
  await pipeline(createReadStream(tar, { highWaterMark: 1 << 20 }), into);
  await rm(tar);
}

export async function endWarmVm(host: VmHost, vm: WarmVm): Promise<void> {
  await endVm(host, vm.id, vm.booted.vm);
  vm.booted.talk.close();
  await removeTree(vm.dir);
}
