import { chown, rm } from 'node:fs/promises';
import { join, posix } from 'node:path';
import { cacheEnvironment } from '../cache.ts';
import type { CacheFolder, Machine, MachineSpec } from '../driver.ts';
import { openEgress } from '../network/egress.ts';
import { readHostNetwork } from '../network/host-network.ts';
import { type Egress, OPEN_NETWORK, proxyEnvironment } from '../network/policy.ts';
import type { RegistrySettings } from '../registry.ts';
import { removeTree } from '../scratch.ts';
import {
  cacheDriveBytes,
  fillCache,
  isQuicklyCopied,
  makeOutput,
  makeScratch,
  padDrive,
  returnCache,
  rootDrives,
  takeCache,
} from './drives.ts';
import { namedFiles, packInput } from './exchange.ts';
import { BUILD_USER, type Job, jobFiles } from './guest/job.ts';
import type { VmDrive, VmSpec } from './hypervisor.ts';
import type { MicrovmOptions } from './options.ts';
import type { WarmPool } from './pool.ts';
import { readSockets, VmRun } from './run.ts';
import { openShortFolder } from './short-path.ts';
import { type BootedVm, bootVm, endVm, makeVmDir, type VmHost } from './vm-host.ts';
import { fillInput, type WarmShape, type WarmVm } from './warm-vm.ts';

const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
export const VCPUS = 2;
/** The host's own proxy cannot be reached from a machine; its policy's proxy is set instead. */
const HOST_PROXIES = /^(https?_proxy|all_proxy|no_proxy)$/i;

/** The steps from a spec to a running machine; whatever fails on the way leaves nothing behind. */
export class Start {
  readonly o: MicrovmOptions & { rootFiles: () => Promise<string[]> };
  readonly host: VmHost;
  readonly spec: MachineSpec;
  readonly registry: RegistrySettings;
  readonly on_gone: (warm_id: string | null) => void;
  dir = '';
  user: VmSpec['user'] = null;
  /** The waiting VM that does this job, when one was fit for it. */
  warm: WarmVm | null = null;
  has_cache = false;
  egress: Egress | null = null;
  vm_run: VmRun | undefined;

  constructor(
    o: Start['o'],
    host: VmHost,
    spec: MachineSpec,
    registry: RegistrySettings,
    on_gone: Start['on_gone'],
  ) {
    this.o = o;
    this.host = host;
    this.spec = spec;
    this.registry = registry;
    this.on_gone = on_gone;
  }

  async run(boot_ms: number | undefined, pool: WarmPool | null): Promise<Machine> {
    const { host, spec, o } = this;
    try {
      if (pool !== null) await this.takeWarm(pool);
      if (this.warm === null) ({ dir: this.dir, user: this.user } = await makeVmDir(host, spec.id));
      const { dir } = this;
      const made = this.warm === null ? await this.makeDrives() : null;
      const output_bytes = made?.output_bytes ?? this.warm!.output_bytes;
      await this.openEgress();
      const run = new VmRun({
        host,
        spec,
        dir,
        open_output: readSockets,
        workspace: {
          unpack: o.unpack,
          dir: spec.workspace_dir,
          bytes: output_bytes,
          path: join(dir, 'output.img'),
        },
        egress: this.egress,
        cache: this.cache(),
        on_gone: () => this.on_gone(this.warm?.id ?? null),
      });
      this.vm_run = run;
      const booted =
        made === null ? this.warm!.booted : await this.boot(run, made.drives, output_bytes, boot_ms);
      if (this.warm !== null) this.warm.on_event = (event) => run.on(event);
      run.vm = booted.vm;
      return await run.start(booted);
    } catch (error) {
      await this.clear();
      const why = error instanceof Error ? error.message : String(error);
      throw new Error(`machine ${spec.id} could not be started: ${why}`, { cause: error });
    } finally {
      // Only now: booting another would slow this start down.
      pool?.fill();
    }
  }

  async boot(run: VmRun, drives: VmDrive[], output_bytes: number, boot_ms?: number): Promise<BootedVm> {
    const { o, spec, dir, user } = this;
    const socket_path = join(dir, 'egress.sock');
    return await bootVm(this.host, {
      id: spec.id,
      dir,
      user,
      drives,
      vcpus: o.vcpus ?? VCPUS,
      memory_bytes: spec.limits.memory_bytes,
      channels: (['control', 'stdout', 'stderr'] as const).map((name) => ({ name, to: 'socket' })),
      network: this.egress === null ? { kind: 'none' } : { kind: 'egress', socket_path },
      max_file_bytes: output_bytes + (this.cache()?.max_bytes ?? 0),
      survives_engine: false,
      ...(boot_ms === undefined ? {} : { boot_ms }),
      on_event: (event) => run.on(event),
    });
  }

  /** Takes a waiting VM whose shape fits, and puts the job and the cache on its drives. */
  async takeWarm(pool: WarmPool): Promise<void> {
    const cache = this.cache();
    const { shape } = this.o.warm!;
    const warm = (await this.fits(shape)) ? pool.take() : null;
    if (warm === null) return;
    const tar = join(warm.dir, 'job.tar');
    try {
      const size = await this.packJob(tar);
      if (size > shape.input_bytes) {
        await rm(tar);
        return;
      }
      [this.warm, this.dir, this.user] = [warm, warm.dir, warm.user];
    } finally {
      if (this.warm === null) pool.giveBack(warm);
    }
    await fillInput(tar, warm);
    if (cache === null || shape.cache_bytes === 0) return;
    await fillCache(cache, warm.dir);
    this.has_cache = true;
  }

  async fits(shape: WarmShape): Promise<boolean> {
    const { kind, limits } = this.spec;
    const cache = this.cache();
    return (
      kind !== 'instance' &&
      limits.memory_bytes === shape.memory_bytes &&
      limits.disk_bytes === shape.disk_bytes &&
      (cache === null ||
        (cacheDriveBytes(cache.max_bytes) === shape.cache_bytes && (await isQuicklyCopied(cache))))
    );
  }

  async packJob(out_path: string): Promise<number> {
    const files = jobFiles(await this.job());
    return await packInput({ pack: this.o.pack, workspace_dir: this.spec.workspace_dir, files, out_path });
  }

  async makeDrives(): Promise<{ drives: VmDrive[]; output_bytes: number }> {
    const { o, spec, dir, user } = this;
    const path = (name: string) => join(dir, `${name}.img`);
    const input_bytes = await this.packJob(path('input'));
    await padDrive(path('input'), user);
    const scratch_bytes = await makeScratch(path('scratch'), input_bytes + spec.limits.disk_bytes, user);
    const output_bytes = await makeOutput(path('output'), scratch_bytes, user);
    const folder = this.cache();
    const cache = folder ? await takeCache(folder, dir, user) : null;
    this.has_cache = cache !== null;
    const drives: VmDrive[] = [
      ...rootDrives(await o.rootFiles()),
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
    const env = Object.entries(registry.env).filter(([name]) => !HOST_PROXIES.test(name));
    return {
      kind: 'workspace',
      run: { shell: spec.command },
      cwd: posix.join('/workspace', spec.cwd),
      env: {
        PATH,
        HOME: '/home',
        TMPDIR: '/tmp',
        LANG: 'C.UTF-8',
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
      cache: (this.cache()?.max_bytes ?? 0) > 0,
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
    if (this.warm !== null) await endVm(this.host, this.warm.id, this.warm.booted.vm);
    await this.egress?.close().catch(() => undefined);
    const cache = this.cache();
    if (cache && this.has_cache) await returnCache(cache, dir);
    if (dir !== '') await removeTree(dir);
    this.on_gone(this.warm?.id ?? null);
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
