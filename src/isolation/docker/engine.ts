import { access } from 'node:fs/promises';
import { createRequire } from 'node:module';
import type Docker from 'dockerode';
import type { SelfTest } from '../driver.ts';
import type { MachineImage } from '../image.ts';

export const DOCKER_SOCKET = '/var/run/docker.sock';

/** What every container, network and image of Kiln carries: whose it is, what for, and which one. */
export const LABEL = { data: 'dev.kiln.data', role: 'dev.kiln.role', id: 'dev.kiln.id' } as const;
export type Role = 'machine' | 'instance';

const INSTALL =
  'Install Docker (`apt install docker.io`, or see https://docs.docker.com/engine/install), start it, and let the engine’s user into the group `docker`.';

/** @throws Error for an address that is no Unix socket: a daemon elsewhere sees none of this host's folders and ports. */
export function socketPath(address: string = DOCKER_SOCKET): string {
  const path = address.replace(/^unix:\/\//, '');
  if (path.startsWith('/')) return path;
  throw new Error(
    `Docker is reached over a Unix socket of this host only, not at ${JSON.stringify(address)}. Give unix:///path/of/docker.sock.`,
  );
}

/** A daemon that may not be there. */
export interface Daemon {
  socket_path: string;
  /** To speak to it. Loads dockerode, which takes 110 ms that no start without Docker should spend. */
  client(): Docker;
}

const load = createRequire(import.meta.url);

export function openDocker(address?: string): Daemon {
  const socket_path = socketPath(address);
  let client: Docker | undefined;
  return {
    socket_path,
    client() {
      client ??= new (load('dockerode') as typeof Docker)({ socketPath: socket_path });
      return client;
    },
  };
}

/** Does a daemon answer, and can it hold the limits? Null when so. */
export async function daemonProblem(daemon: Daemon): Promise<Extract<SelfTest, { ok: false }> | null> {
  try {
    await access(daemon.socket_path);
    const info = await daemon.client().info();
    if (info.OSType !== 'linux')
      return { ok: false, reason: `the Docker daemon runs ${info.OSType} containers`, install: null };
    const missing = [info.MemoryLimit ? '' : 'memory', info.PidsLimit ? '' : 'pids'].filter(Boolean);
    if (missing.length === 0) return null;
    return {
      ok: false,
      reason: `the Docker daemon cannot limit ${missing.join(' and ')}`,
      install: 'Enable the memory and pids cgroup controllers (kernel option `cgroup_enable=memory`).',
    };
  } catch (error) {
    return { ok: false, reason: dockerMessage(error), install: INSTALL };
  }
}

/** One line that says what the daemon refused, or that there is none. */
export function dockerMessage(error: unknown): string {
  const { code, json, message } = error as { code?: string; json?: { message?: string }; message?: string };
  if (code === 'ENOENT') return 'there is no Docker daemon: its socket does not exist';
  if (code === 'ECONNREFUSED') return 'no Docker daemon listens on its socket';
  if (code === 'EACCES') return 'the engine’s user may not use the Docker socket';
  return (json?.message ?? message ?? String(error)).split('\n')[0]!;
}

export function isGone(error: unknown): boolean {
  return (error as { statusCode?: number }).statusCode === 404;
}

/** No answer at all, in contrast to a refusal: the daemon is being restarted. */
export function isUnreachable(error: unknown): boolean {
  return (error as { statusCode?: number }).statusCode === undefined;
}

/** The local name of an image: by it a later engine finds it again, and `docker image prune` leaves it alone. */
export function imageName(data_key: string, image: MachineImage): string {
  return `kiln-${data_key}:${image.manifest.config.digest.replace('sha256:', '')}`;
}

const loading = new Map<string, Promise<string>>();

/**
 * The daemon's id of an image, loaded if it is not there. Daemons with the classic store use the digest of the
 * config; those with containerd's store make up a manifest of their own, so the name is what counts.
 */
export async function ensureImage(docker: Docker, data_key: string, image: MachineImage): Promise<string> {
  const name = imageName(data_key, image);
  const known = await docker
    .getImage(name)
    .inspect()
    .catch((error) => (isGone(error) ? null : Promise.reject(error)));
  if (known !== null) return known.Id;
  const running = loading.get(name) ?? loadImage(docker, name, image).finally(() => loading.delete(name));
  loading.set(name, running);
  return await running;
}

async function loadImage(docker: Docker, name: string, image: MachineImage): Promise<string> {
  const archive = image.dockerArchive();
  const failed = new Promise<never>((_, reject) => archive.once('error', reject));
  const loaded = (async () => {
    let loaded_as: string | undefined;
    const answer = await docker.loadImage(archive);
    for (const message of await progress(docker, answer)) {
      if (message.error) throw new Error(`Docker refused the image ${image.digest}: ${message.error}`);
      loaded_as = /Loaded image(?: ID)?: (\S+)/.exec(message.stream ?? '')?.[1] ?? loaded_as;
    }
    const found = docker.getImage(loaded_as ?? image.manifest.config.digest);
    const at = name.lastIndexOf(':');
    await found.tag({ repo: name.slice(0, at), tag: name.slice(at + 1) });
    return (await found.inspect()).Id;
  })();
  try {
    return await Promise.race([loaded, failed]);
  } finally {
    archive.destroy();
  }
}

function progress(
  docker: Docker,
  stream: NodeJS.ReadableStream,
): Promise<{ stream?: string; error?: string }[]> {
  return new Promise((resolve, reject) => {
    docker.modem.followProgress(stream, (error, output) => (error ? reject(error) : resolve(output)));
  });
}

/** Containers of a data folder in one role, by id of their machine. */
export async function ownContainers(docker: Docker, data_key: string, role: Role) {
  const label = [`${LABEL.data}=${data_key}`, `${LABEL.role}=${role}`];
  const found = await docker.listContainers({ all: true, filters: { label } });
  return new Map(found.map((one) => [one.Labels[LABEL.id]!, one]));
}

/** Removes a container with its anonymous volumes, running or not. */
export async function removeContainer(docker: Docker, id: string): Promise<void> {
  await docker
    .getContainer(id)
    .remove({ force: true, v: true })
    .catch((error) => {
      // 409: somebody is removing it already.
      if (!isGone(error) && (error as { statusCode?: number }).statusCode !== 409) throw error;
    });
}
