import { access, mkdir, writeFile } from 'node:fs/promises';
import { dirname, join, posix } from 'node:path';
import { arch, platform } from 'node:process';
import type Docker from 'dockerode';
import { cacheEnvironment } from '../cache.ts';
import { countPause, type DiskWatch, watchDisk } from '../disk.ts';
import type {
  CacheFolder,
  DriverOptions,
  IsolationDriver,
  Machine,
  MachineExit,
  MachineSpec,
} from '../driver.ts';
import type { MachineImage } from '../image.ts';
import { openEgress } from '../network/egress.ts';
import { readHostNetwork } from '../network/host-network.ts';
import { type Egress, type EgressOptions, OPEN_NETWORK, proxyEnvironment } from '../network/policy.ts';
import { makeScanner } from '../processes.ts';
import { forImage, forKind, type RegistrySettings, readRegistrySettings } from '../registry.ts';
import { checkSpec, makePrivateDir, removeTree } from '../scratch.ts';
import { dataKey, sweepMachines } from '../sweep.ts';
import { containerOptions, imageEnvironment, startScript } from './container.ts';
import {
  type Daemon,
  dockerMessage,
  ensureImage,
  openDocker,
  ownContainers,
  removeContainer,
} from './engine.ts';
import { ContainerRun, containerSampler } from './life.ts';
import { attachOutput } from './output.ts';
import { RELAY_PORT, RELAY_SCRIPT, relayLines } from './relay.ts';
import { describeImage, selfTest } from './self-test.ts';

export interface DockerDriverOptions extends DriverOptions {
  /** Path or `unix://…` of the daemon's socket. */
  socket?: string;
  /** The root file system of machines: needs a POSIX shell, `env`, `nice`, and `node` for the way to the network. */
  base_image: MachineImage;
  /** For tests: opens the proxy that is a machine's only way out. */
  open_egress?: (o: EgressOptions) => Promise<Egress>;
  /** Processors per machine; null (default) for all. */
  cpus?: number | null;
}

const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const LOG_CONFIG = { Type: 'none', Config: {} };

/**
 * Builds and execs as containers of `base_image`: no capabilities, no new privileges, a read-only root, the workspace
 * bound at /workspace, no network but a socket that leads to the policy's proxy. They run as the engine's own user,
 * so that what they leave in the workspace is the engine's to remove.
 */
export function dockerDriver(o: DockerDriverOptions): IsolationDriver {
  const daemon = openDocker(o.socket);
  const host: DockerHost = {
    options: o,
    daemon,
    data_key: dataKey(o.data_dir),
    sampler: containerSampler(),
    running: new Set<string>(),
    registry: null,
  };
  const start = (spec: MachineSpec) => startContainer(host, spec);
  let tested: ReturnType<typeof selfTest> | undefined;
  let described: Promise<string> | undefined;
  return {
    name: 'docker',
    capabilities: {
      hides_host_files: true,
      hides_host_processes: true,
      fixed_workspace_path: true,
      // Containers go on without it; `sweep` ends those a killed engine left.
      dies_with_engine: false,
      limits_network: true,
      copies_workspace: false,
    },
    base_image: o.base_image,
    selfTest() {
      tested ??= selfTest(daemon, o, start);
      return tested;
    },
    base() {
      described ??= describeImage(start, o.work_dir, `${platform}-${arch}`);
      return described;
    },
    start,
    async sweep(keep) {
      const kept = (id: string) => keep.has(id) || host.running.has(id);
      const lost: string[] = [];
      const docker = daemon.client();
      for (const [id, one] of await ownContainers(docker, host.data_key, 'machine')) {
        if (kept(id)) continue;
        lost.push(id);
        await removeContainer(docker, one.Id);
      }
      const { data_key } = host;
      const others = await sweepMachines({
        scanner: makeScanner(),
        data_key,
        work_dir: o.work_dir,
        keep: kept,
      });
      return [...new Set([...lost, ...others])].sort();
    },
  };
}

interface DockerHost {
  options: DockerDriverOptions;
  daemon: Daemon;
  data_key: string;
  sampler: ReturnType<typeof containerSampler>;
  /** Ids of machines this driver object supervises. */
  running: Set<string>;
  registry: Promise<RegistrySettings> | null;
}

async function startContainer(host: DockerHost, spec: MachineSpec): Promise<Machine> {
  await checkSpec(spec);
  if (host.running.has(spec.id)) throw new Error(`machine ${spec.id} is running already`);
  // From here on a sweep leaves its folder and container alone.
  host.running.add(spec.id);
  const run = new Starting(host, spec);
  try {
    return await run.start();
  } catch (error) {
    await run.cleanUp().catch(() => undefined);
    throw new Error(`machine ${spec.id} could not be started: ${dockerMessage(error)}`, { cause: error });
  }
}

/** What is made for one machine, so that it can be unmade at any point. */
class Starting {
  readonly host: DockerHost;
  readonly spec: MachineSpec;
  readonly private_dir: string;
  container: Docker.Container | undefined;
  egress: Egress | undefined;
  disk: DiskWatch | undefined;
  run: ContainerRun | undefined;

  constructor(host: DockerHost, spec: MachineSpec) {
    this.host = host;
    this.spec = spec;
    this.private_dir = join(host.options.work_dir, spec.id);
  }

  async start(): Promise<Machine> {
    const { host, spec } = this;
    const { daemon, data_key, options } = host;
    const docker = daemon.client();
    host.registry ??= readRegistrySettings(options);
    const all = await host.registry;
    const registry = forImage(forKind(all, spec.kind));
    await makePrivateDir(this.private_dir, registry.files);
    await this.openEgress(all);
    await this.writeFiles(registry);
    const image_id = await ensureImage(docker, data_key, options.base_image);
    this.container = await docker.createContainer(await this.shape(image_id, registry));
    let full = false;
    const output = await attachOutput(docker, this.container, {
      ...spec,
      on_full: () => {
        full = true;
        this.run?.fail('log_limit');
      },
    });
    this.disk = await watchDisk({
      dirs: [spec.workspace_dir, join(this.private_dir, 'tmp'), join(this.private_dir, 'home')],
      limit_bytes: spec.limits.disk_bytes,
      count_every_ms: countPause(spec.kind),
      pids: () => this.run?.pids() ?? [],
      on_full: () => this.run?.fail('out_of_disk'),
    });
    await this.container.start().catch((error) => {
      output.close();
      throw error;
    });
    const { State } = await this.container.inspect();
    this.run = new ContainerRun({
      id: spec.id,
      container: this.container,
      pid: State.Pid,
      limits: spec.limits,
      stop_signal: null,
      sampler: host.sampler,
      drained: (patience_ms) => output.drained(patience_ms),
      cleanUp: () => this.cleanUp(),
    });
    if (full) this.run.fail('log_limit');
    return this.run.machine();
  }

  /** Also with policy `none`: its proxy refuses everything, and what was refused is in the log. */
  async openEgress(registry: RegistrySettings): Promise<void> {
    const { spec, host } = this;
    if (spec.kind === 'instance') return;
    await mkdir(join(this.private_dir, 'net'), { mode: 0o700 });
    this.egress = await (host.options.open_egress ?? openEgress)({
      policy: spec.network ?? OPEN_NETWORK,
      socket_path: join(this.private_dir, 'net', 'proxy.sock'),
      host: readHostNetwork(host.options.host_env, registry),
      on_refused: (line) => spec.on_output('stderr', Buffer.from(`[kiln] ${line}\n`)),
    });
  }

  cache(): CacheFolder | null {
    return this.spec.kind === 'build' ? (this.spec.cache ?? null) : null;
  }

  /** What the machine finds in /kiln. */
  async writeFiles(registry: RegistrySettings): Promise<void> {
    const { spec, host } = this;
    const image = imageEnvironment(host.options.base_image.config.config?.Env);
    const env = {
      ...image,
      PATH: image.PATH ?? DEFAULT_PATH,
      HOME: '/home',
      TMPDIR: '/tmp',
      LANG: 'C.UTF-8',
      ...(this.cache() ? cacheEnvironment('/cache') : {}),
      ...registry.env,
      ...(this.egress ? proxyEnvironment(`http://127.0.0.1:${RELAY_PORT}`) : {}),
      ...spec.env,
    };
    const script = startScript({
      cwd: posix.join('/workspace', spec.cwd),
      env,
      command: spec.command,
      before: this.egress ? relayLines() : [],
    });
    const [uid, gid] = engineUser();
    await mkdir(join(this.private_dir, 'kiln'), { mode: 0o700 });
    const files = {
      start: script,
      'relay.cjs': RELAY_SCRIPT,
      passwd: `root:x:0:0:root:/home:/bin/sh\n${uid === 0 ? '' : `app:x:${uid}:${gid}:app:/home:/bin/sh\n`}`,
      group: `root:x:0:\n${gid === 0 ? '' : `app:x:${gid}:\n`}`,
    };
    for (const [name, text] of Object.entries(files))
      await writeFile(join(this.private_dir, 'kiln', name), text, { mode: 0o600 });
  }

  async shape(image_id: string, registry: RegistrySettings): Promise<Docker.ContainerCreateOptions> {
    const { spec, private_dir, host } = this;
    const { data_key, options } = host;
    const base = containerOptions({
      ...{
        image_id,
        data_key,
        role: 'machine',
        id: spec.id,
        limits: spec.limits,
        cpus: options.cpus ?? null,
      },
    });
    const mount = (Source: string, Target: string, ReadOnly = false): Docker.MountSettings => ({
      Type: 'bind',
      Source,
      Target,
      ReadOnly,
      BindOptions: { Propagation: 'rprivate' },
    });
    const cache = this.cache()?.dir ?? null;
    const settings = await existing(registry.paths);
    return {
      ...base,
      User: engineUser().join(':'),
      WorkingDir: '/',
      Entrypoint: ['/bin/sh', '/kiln/start'],
      Cmd: [],
      HostConfig: {
        ...base.HostConfig,
        NetworkMode: 'none',
        LogConfig: LOG_CONFIG,
        ReadonlyRootfs: true,
        // The root user of an engine that is root owns Docker's /dev; nothing is to be put there.
        Tmpfs: {
          '/dev': 'ro,nosuid,dev,noexec,mode=755,size=64k',
          '/dev/shm': 'rw,nosuid,nodev,noexec,mode=1777,size=64m',
        },
        Mounts: [
          mount(spec.workspace_dir, '/workspace'),
          mount(join(private_dir, 'tmp'), '/tmp'),
          mount(join(private_dir, 'home'), '/home'),
          mount(join(private_dir, 'kiln'), '/kiln', true),
          mount(join(private_dir, 'kiln', 'passwd'), '/etc/passwd', true),
          mount(join(private_dir, 'kiln', 'group'), '/etc/group', true),
          ...(this.egress ? [mount(join(private_dir, 'net'), '/kiln-net', true)] : []),
          ...(cache ? [mount(cache, '/cache')] : []),
          ...settings.map((path) => mount(path, path, true)),
        ],
      },
    };
  }

  async cleanUp(): Promise<Partial<MachineExit>> {
    const disk_bytes = this.spec.kind === 'build' ? ((await this.disk?.peak()) ?? null) : null;
    this.disk?.stop();
    if (this.container)
      await removeContainer(this.host.daemon.client(), this.container.id).catch(() => undefined);
    await this.egress?.close();
    await removeTree(this.private_dir);
    this.host.running.delete(this.spec.id);
    return { disk_bytes, ...(this.egress ? { hosts: this.egress.contacts() } : {}) };
  }
}

function engineUser(): [number, number] {
  return [process.getuid?.() ?? 0, process.getgid?.() ?? 0];
}

/** Settings may name files that are not there (any more); a bind of those would fail the machine. */
async function existing(paths: readonly string[]): Promise<string[]> {
  const sorted = [...new Set(paths)].sort((a, b) => a.length - b.length);
  const found: string[] = [];
  for (const path of sorted) {
    const covered = found.some((parent) => path.startsWith(`${parent}/`) || dirname(path) === parent);
    const there = await access(path).then(
      () => true,
      () => false,
    );
    if (there && !covered) found.push(path);
  }
  return found;
}
