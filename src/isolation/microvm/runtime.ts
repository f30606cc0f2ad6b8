import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Machine, SelfTest } from '../driver.ts';
import { checkEnvironment } from '../environment.ts';
import { makeScanner } from '../processes.ts';
import type { Adoption, ImageRuntime, InstanceSpec, RuntimeName } from '../runtime.ts';
import { removeTree } from '../scratch.ts';
import { dataKey, sweepMachines } from '../sweep.ts';
import { converse } from './conversation.ts';
import type { MicrovmDriver } from './driver.ts';
import { makeScratch, padDrive, rootDrives } from './drives.ts';
import { packInput } from './exchange.ts';
import { type Job, jobFiles } from './guest/job.ts';
import type { Hypervisor, VmChannel, VmDrive, VmRecord } from './hypervisor.ts';
import { type Offsets, readLogFiles } from './log-file.ts';
import type { MicrovmOptions } from './options.ts';
import { VmRun } from './run.ts';
import { bootVm, endVm, makeVmDir, openVmHost, type VmHost } from './vm-host.ts';

const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const CHANNELS: VmChannel[] = [
  { name: 'control', to: 'socket' },
  { name: 'stdout', to: 'file' },
  { name: 'stderr', to: 'file' },
];
const RECORD_FILE = 'instance.json';
const ID = /^[A-Za-z0-9_-]{1,64}$/;

export interface MicrovmRuntimeOptions extends Omit<MicrovmOptions, 'unpack'> {
  /**
   * What instances may reach by themselves. `open`: the world and the private networks of the host, as with every
   * other driver, but not the host's own loopback and no metadata address. `none`: they only answer. Default open.
   */
  instance_network?: 'open' | 'none';
}

/** What the next engine needs to find an instance again. */
interface InstanceRecord {
  vm: VmRecord;
  /** Delivered so far. */
  read: Offsets;
}

/**
 * Instances of OCI releases as virtual machines: the image is the root (its squashfs files below an overlay on a scratch
 * disk), its own command runs as its own user, and a port of 127.0.0.1 leads to it. A VM goes on when the engine
 * ends; the next one finds it by its record and reads its output from where the last one stopped.
 *
 * `work_dir` must not be that of the driver: each sweeps its own. `driver` has made the self-test for both.
 */
export function microvmRuntime(
  name: RuntimeName,
  o: MicrovmRuntimeOptions,
  driver: MicrovmDriver,
): ImageRuntime {
  return new MicrovmRuntime(name, o, driver);
}

class MicrovmRuntime implements ImageRuntime {
  readonly name: RuntimeName;
  readonly survives_engine = true;
  readonly o: MicrovmRuntimeOptions;
  readonly driver: MicrovmDriver;
  /** A key of its own, so that the driver's sweep leaves instances alone. */
  readonly data_key: string;
  readonly held = new Map<string, { run: VmRun; save(): Promise<void> }>();
  readonly starting = new Set<string>();

  constructor(name: RuntimeName, o: MicrovmRuntimeOptions, driver: MicrovmDriver) {
    this.name = name;
    this.o = o;
    this.driver = driver;
    this.data_key = `${dataKey(o.data_dir)}-instances`;
  }

  selfTest(): Promise<SelfTest> {
    return this.driver.selfTest();
  }

  async start(spec: InstanceSpec): Promise<Machine> {
    const { hypervisor, result } = await this.driver.tested();
    if (hypervisor === null) throw new Error(result.ok ? 'no hypervisor works' : result.reason);
    checkInstance(spec);
    if (this.held.has(spec.id) || this.starting.has(spec.id))
      throw new Error(`instance ${spec.id} is running already`);
    this.starting.add(spec.id);
    let run: VmRun | undefined;
    try {
      await mkdir(this.o.work_dir, { recursive: true });
      return await this.boot(this.host(hypervisor), spec, (made) => {
        run = made;
      });
    } catch (error) {
      if (run?.vm !== undefined) await run.clear();
      this.held.delete(spec.id);
      await removeTree(this.dir(spec.id));
      const why = error instanceof Error ? error.message : String(error);
      throw new Error(`instance ${spec.id} could not be started: ${why}`, { cause: error });
    } finally {
      this.starting.delete(spec.id);
    }
  }

  async boot(host: VmHost, spec: InstanceSpec, on_run: (run: VmRun) => void): Promise<Machine> {
    const { o } = this;
    const { dir, user } = await makeVmDir(host, spec.id);
    const { drives, scratch_bytes } = await makeDrives(o, spec, dir, user);
    const run = this.makeRun(host, spec, { stdout: 0, stderr: 0 });
    on_run(run);
    const { host_port, guest_port, limits, id } = spec;
    const booted = await bootVm(host, {
      id,
      dir,
      user,
      drives,
      channels: CHANNELS,
      survives_engine: true,
      network: { kind: 'forward', host_port, guest_port, outbound: o.instance_network !== 'none' },
      vcpus: o.vcpus ?? 1,
      memory_bytes: limits.memory_bytes,
      max_file_bytes: scratch_bytes + limits.log_bytes,
      on_event: (event) => run.on(event),
    });
    run.vm = booted.vm;
    await writeRecord(dir, { vm: booted.vm.record, read: { stdout: 0, stderr: 0 } });
    return await run.start(booted);
  }

  async adopt(of: Adoption): Promise<Machine | null> {
    if (!ID.test(of.id) || this.o.image === null) return null;
    const dir = this.dir(of.id);
    const record = await readRecord(dir);
    if (record === null) return null;
    for (const hypervisor of this.driver.candidates) {
      const vm = await hypervisor.adopt(record.vm, { id: of.id, dir, channels: CHANNELS });
      if (vm === null) continue;
      const host = this.host(hypervisor);
      const run = this.makeRun(host, of, record.read);
      try {
        const talk = converse(await vm.open('control'), (event) => run.on(event));
        await run.attach({ vm, talk });
        return run.supervise();
      } catch {
        // It ended in this instant.
        this.held.delete(of.id);
        await endVm(host, of.id, vm);
      }
    }
    return null;
  }

  async release(): Promise<void> {
    for (const { run, save } of this.held.values()) {
      await run.letGo();
      await save();
    }
    this.held.clear();
  }

  async sweep(keep: ReadonlySet<string>): Promise<string[]> {
    return await sweepMachines({
      scanner: makeScanner(),
      data_key: this.data_key,
      work_dir: this.o.work_dir,
      keep: (id) => keep.has(id) || this.held.has(id) || this.starting.has(id),
    });
  }

  dir(id: string): string {
    return join(this.o.work_dir, id);
  }

  host(hypervisor: Hypervisor): VmHost {
    const { image, work_dir, host_env } = this.o;
    const search_path = host_env.PATH ?? '';
    return openVmHost({ hypervisor, image: image!, data_key: this.data_key, work_dir, search_path });
  }

  /** The run around a VM, whether it is new or found again. */
  makeRun(host: VmHost, of: Omit<Adoption, 'logs_since'>, from: Offsets): VmRun {
    const dir = this.dir(of.id);
    let read = from;
    let saving: Promise<void> = Promise.resolve();
    const save = () => {
      saving = saving.then(() => writeRecord(dir, { vm: run.vm.record, read })).catch(() => undefined);
      return saving;
    };
    const run: VmRun = new VmRun({
      host,
      dir,
      workspace: null,
      egress: null,
      cache: null,
      spec: of,
      on_gone: () => this.held.delete(of.id),
      open_output: async (_, receive) =>
        readLogFiles({
          dir,
          from,
          receive,
          on_read(offsets) {
            read = offsets;
            void save();
          },
        }),
    });
    run.received = { ...from };
    this.held.set(of.id, { run, save });
    return run;
  }
}

function checkInstance(spec: InstanceSpec): void {
  if (!ID.test(spec.id)) throw new Error(`instance id ${JSON.stringify(spec.id)} is not a plain name`);
  checkEnvironment(spec.env, 'an instance');
}

async function makeDrives(
  o: MicrovmRuntimeOptions,
  spec: InstanceSpec,
  dir: string,
  user: Awaited<ReturnType<typeof makeVmDir>>['user'],
): Promise<{ drives: VmDrive[]; scratch_bytes: number }> {
  const path = (name: string) => join(dir, `${name}.img`);
  const nothing = join(dir, 'nothing');
  await mkdir(nothing);
  const files = jobFiles(instanceJob(spec, o.instance_network ?? 'open'));
  await packInput({ pack: o.pack, workspace_dir: nothing, files, out_path: path('input') });
  await padDrive(path('input'), user);
  const scratch_bytes = await makeScratch(path('scratch'), spec.limits.disk_bytes, user);
  const drives: VmDrive[] = [
    ...rootDrives(await spec.image.squashfs()),
    { name: 'scratch', path: path('scratch'), read_only: false },
    { name: 'input', path: path('input'), read_only: true },
  ];
  return { drives, scratch_bytes };
}

/** The image's own run configuration, with what the spec says on top. */
export function instanceJob(spec: InstanceSpec, network: 'open' | 'none'): Job {
  const config = spec.image.config.config ?? {};
  const own = (config.Env ?? []).map((entry): [string, string] => {
    const at = entry.indexOf('=');
    return [entry.slice(0, at), entry.slice(at + 1)];
  });
  const args = [...(config.Entrypoint ?? []), ...(config.Cmd ?? [])];
  if (spec.command === null && args.length === 0)
    throw new Error('the image has neither an entrypoint nor a command, and none was given');
  return {
    kind: 'image',
    run: spec.command === null ? { args } : { shell: spec.command },
    cwd: config.WorkingDir || '/',
    env: { PATH, ...Object.fromEntries(own.filter(([name]) => name !== '')), ...spec.env },
    user: config.User ?? '',
    network: network === 'open' ? 'outbound' : 'egress',
    limits: spec.limits,
    log_bytes: spec.limits.log_bytes,
    read_only_root: spec.read_only_root,
    cache: false,
    host_name: 'app',
    home_files: [],
    root_files: [],
  };
}

async function writeRecord(dir: string, record: InstanceRecord): Promise<void> {
  const path = join(dir, RECORD_FILE);
  await writeFile(`${path}.new`, JSON.stringify(record), { mode: 0o600 });
  await rename(`${path}.new`, path);
}

async function readRecord(dir: string): Promise<InstanceRecord | null> {
  try {
    return JSON.parse(await readFile(join(dir, RECORD_FILE), 'utf8')) as InstanceRecord;
  } catch {
    return null;
  }
}
