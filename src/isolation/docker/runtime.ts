import { access } from 'node:fs/promises';
import { arch } from 'node:process';
import type Docker from 'dockerode';
import { countPause, watchDisk } from '../disk.ts';
import type { Machine, SelfTest } from '../driver.ts';
import { checkEnvironment } from '../environment.ts';
import type { Adoption, ImageRuntime, InstanceSpec } from '../runtime.ts';
import { dataKey } from '../sweep.ts';
import { containerOptions, instanceCapabilities } from './container.ts';
import {
  type Daemon,
  daemonProblem,
  dockerMessage,
  ensureImage,
  openDocker,
  ownContainers,
  removeContainer,
} from './engine.ts';
import { closeLinkLocal } from './firewall.ts';
import { ContainerRun, containerSampler, type Life } from './life.ts';
import { ensureNetwork, INSTANCE_RANGE, removeIdleNetworks } from './network.ts';
import { followLog } from './output.ts';
import { PROBE_ANSWER, probeImage } from './probe-image.ts';

export interface DockerRuntimeOptions {
  data_dir: string;
  /** Path or `unix://…` of the daemon's socket. */
  socket?: string;
  /** Processors per instance; null (default) for all. */
  cpus?: number | null;
  /** Where the networks of deployments are cut from. */
  network_range?: string;
}

/** The daemon's own log of a container: what an engine that starts again can read back. */
const LOG_CONFIG = { Type: 'json-file', Config: { 'max-size': '8m', 'max-file': '2' } };
const SIZE_CHECK_MS = 10_000;

/**
 * Instances as containers: image as it is, a port of 127.0.0.1 forwarded, no new privileges, next to no capabilities,
 * a bridge network per deployment. They go on when the engine ends; the next one adopts them by their labels.
 */
export function dockerRuntime(o: DockerRuntimeOptions): ImageRuntime {
  const daemon = openDocker(o.socket);
  const data_key = dataKey(o.data_dir);
  const running: RuntimeHost['running'] = new Map();
  const host = { daemon, sampler: containerSampler(), running };
  const range = o.network_range ?? INSTANCE_RANGE;
  let guarded: ReturnType<typeof closeLinkLocal> | undefined;

  async function create(spec: InstanceSpec): Promise<Docker.Container> {
    const docker = daemon.client();
    const image_id = await ensureImage(docker, data_key, spec.image);
    const network = await ensureNetwork(docker, { data_key, deployment_id: spec.deployment_id, range });
    guarded ??= closeLinkLocal(range);
    await guarded;
    return await docker.createContainer(
      instanceOptions(spec, { image_id, data_key, network, cpus: o.cpus ?? null }),
    );
  }

  return {
    name: 'docker',
    survives_engine: true,
    selfTest: () => selfTest(daemon, data_key, range),
    async start(spec) {
      checkInstance(spec);
      let container: Docker.Container | undefined;
      try {
        container = await create(spec);
        await container.start();
        return await watchInstance(host, container, spec, null);
      } catch (error) {
        if (container) await removeContainer(daemon.client(), container.id).catch(() => undefined);
        throw new Error(`instance ${spec.id} could not be started: ${dockerMessage(error)}`, {
          cause: error,
        });
      }
    },
    async adopt(of: Adoption) {
      const docker = daemon.client();
      const found = (await ownContainers(docker, data_key, 'instance')).get(of.id);
      if (found?.State !== 'running') return null;
      return await watchInstance(host, docker.getContainer(found.Id), of, of.logs_since);
    },
    async release() {
      for (const one of running.values()) one.close();
      running.clear();
    },
    async sweep(keep) {
      const docker = daemon.client();
      const found = await ownContainers(docker, data_key, 'instance');
      const lost = [...found].filter(([id]) => !keep.has(id));
      for (const [id, one] of lost) {
        await running.get(id)?.run.machine().stop(0);
        await removeContainer(docker, one.Id);
      }
      await removeIdleNetworks(docker, data_key);
      await removeIdleImages(docker, data_key);
      return lost.map(([id]) => id).sort();
    },
  };
}

interface RuntimeHost {
  daemon: Daemon;
  sampler: ReturnType<typeof containerSampler>;
  running: Map<string, { run: ContainerRun; close(): void }>;
}

/** Watches a container that runs; its log is read from `since`. */
async function watchInstance(
  host: RuntimeHost,
  container: Docker.Container,
  spec: Pick<InstanceSpec, 'id' | 'limits' | 'on_output'>,
  since: Date | null,
): Promise<Machine> {
  const { sampler, running } = host;
  const docker = host.daemon.client();
  const info = await container.inspect();
  const output = followLog(docker, container, { ...spec, since });
  const stop_signal = await imageStopSignal(docker, info.Image);
  let endDisk: () => void = () => undefined;
  const life: Life = {
    ...{ id: spec.id, container, pid: info.State.Pid, limits: spec.limits, stop_signal, sampler },
    drained: (patience_ms) => output.drained(patience_ms),
    async cleanUp() {
      endDisk();
      running.delete(spec.id);
      await removeContainer(docker, container.id).catch(() => undefined);
      return {};
    },
  };
  const run = new ContainerRun(life);
  endDisk = await watchLayer(container, info, run);
  running.set(spec.id, {
    run,
    close() {
      endDisk();
      output.close();
      run.letGo();
    },
  });
  return run.machine();
}

/** The container of an instance, as data. */
export function instanceOptions(
  spec: InstanceSpec,
  o: { image_id: string; data_key: string; network: string; cpus: number | null },
): Docker.ContainerCreateOptions {
  const run = spec.image.config.config ?? {};
  const base = containerOptions({ ...o, role: 'instance', id: spec.id, limits: spec.limits });
  const port = `${spec.guest_port}/tcp`;
  return {
    ...base,
    Env: Object.entries(spec.env).map(([name, value]) => `${name}=${value}`),
    ...(spec.command === null ? {} : { Entrypoint: ['/bin/sh', '-c'], Cmd: [spec.command] }),
    ExposedPorts: { [port]: {} },
    HostConfig: {
      ...base.HostConfig,
      CapAdd: instanceCapabilities(run.User),
      NetworkMode: o.network,
      PortBindings: { [port]: [{ HostIp: '127.0.0.1', HostPort: String(spec.host_port) }] },
      LogConfig: LOG_CONFIG,
      ReadonlyRootfs: spec.read_only_root,
      // In memory, so it counts against the instance's own limit.
      ...(spec.read_only_root ? { Tmpfs: { '/tmp': 'rw,nosuid,nodev,mode=1777' } } : {}),
    },
  };
}

const INSTANCE_ID = /^[A-Za-z0-9_-]{1,64}$/;

/** Ids become names of containers and networks, names and values a process environment. */
function checkInstance(spec: InstanceSpec): void {
  for (const id of [spec.id, spec.deployment_id])
    if (!INSTANCE_ID.test(id)) throw new Error(`${JSON.stringify(id)} is not a plain name`);
  checkEnvironment(spec.env, 'an instance');
  for (const port of [spec.host_port, spec.guest_port])
    if (!(Number.isInteger(port) && port > 0 && port < 65_536)) throw new Error(`${port} is no port`);
}

/** Null for TERM, which goes to everybody; another signal is the main process's business alone. */
async function imageStopSignal(docker: Docker, image_id: string): Promise<string | null> {
  const info = await docker
    .getImage(image_id)
    .inspect()
    .catch(() => null);
  const name = (info?.Config as { StopSignal?: string } | undefined)?.StopSignal ?? '';
  return ['', 'SIGTERM', 'TERM', '15'].includes(name) ? null : name;
}

/**
 * Ends an instance that fills the disk. Where the engine may look into the daemon's folder the layer is watched
 * like any other folder; else the daemon is asked, which costs it a walk over the layer.
 */
async function watchLayer(
  container: Docker.Container,
  info: Docker.ContainerInspectInfo,
  run: ContainerRun,
): Promise<() => void> {
  const { disk_bytes } = run.life.limits;
  if (!Number.isFinite(disk_bytes)) return () => undefined;
  const layer = (info.GraphDriver?.Data as { UpperDir?: string } | null)?.UpperDir;
  const volumes = (info.Mounts ?? []).filter((one) => one.Type === 'volume').map((one) => one.Source);
  const dirs = [layer, ...volumes].filter((dir) => dir !== undefined);
  if (
    layer &&
    (await Promise.all(dirs.map((dir) => access(dir)))
      .then(() => true)
      .catch(() => false))
  ) {
    const disk = await watchDisk({
      ...{ dirs, limit_bytes: disk_bytes, count_every_ms: countPause('instance'), pids: () => run.pids() },
      on_full: () => run.fail('out_of_disk'),
    });
    return () => disk.stop();
  }
  const timer = setInterval(() => {
    const asked = container.inspect({ size: true } as object) as Promise<{ SizeRw?: number }>;
    asked.then((seen) => (seen.SizeRw ?? 0) > disk_bytes && run.fail('out_of_disk')).catch(() => undefined);
  }, SIZE_CHECK_MS).unref();
  return () => clearInterval(timer);
}

/** Names of this data folder's images that no container uses go; the daemon then drops the layers. */
async function removeIdleImages(docker: Docker, data_key: string): Promise<void> {
  const images = await docker.listImages({ filters: { reference: [`kiln-${data_key}`] } });
  for (const image of images)
    for (const name of image.RepoTags ?? [])
      await docker
        .getImage(name)
        .remove()
        .catch(() => undefined);
}

/** Loads and runs a program, and reads what it said. */
async function selfTest(daemon: Daemon, data_key: string, range: string): Promise<SelfTest> {
  const problem = await daemonProblem(daemon);
  if (problem !== null) return problem;
  const docker = daemon.client();
  const image = probeImage(arch);
  if (image === null) return { ok: false, reason: `nobody has tried it on ${arch} yet`, install: null };
  const id = `selftest_${process.pid}_${Date.now()}`;
  const limits = {
    ...{ time_ms: null, memory_bytes: 64 * 1024 * 1024, processes: 16, disk_bytes: 16 * 1024 * 1024 },
    ...{ log_bytes: 4096, on_log_limit: 'drop' as const },
  };
  let container: Docker.Container | undefined;
  try {
    const image_id = await ensureImage(docker, data_key, image);
    const base = containerOptions({ image_id, data_key, role: 'instance', id, limits, cpus: null });
    const HostConfig = {
      ...base.HostConfig,
      NetworkMode: 'none',
      LogConfig: LOG_CONFIG,
      ReadonlyRootfs: true,
    };
    container = await docker.createContainer({ ...base, HostConfig });
    await container.start();
    await container.wait();
    const said = (await container.logs({ stdout: true, stderr: true })).subarray(8).toString();
    if (said !== PROBE_ANSWER)
      return { ok: false, reason: `a test container said ${JSON.stringify(said)}`, install: null };
    const { ServerVersion, Driver } = await docker.info();
    const open = await closeLinkLocal(range);
    const link_local = open === null ? 'closed' : `open to instances (${open})`;
    return {
      ok: true,
      detail: `Docker ${ServerVersion}, ${Driver}; a network per deployment; 169.254.0.0/16 ${link_local}`,
    };
  } catch (error) {
    return { ok: false, reason: `a test container did not run: ${dockerMessage(error)}`, install: null };
  } finally {
    if (container) await removeContainer(docker, container.id).catch(() => undefined);
  }
}
