/** A Docker daemon and a base image for system tests. Nothing is pulled: the image is made of Debian packages. */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createReadStream, existsSync, openSync } from 'node:fs';
import { copyFile, mkdir, readFile, rename, rm, stat } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { PassThrough, type Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import * as tar from 'tar-stream';
import { MEDIA_TYPES } from '../../src/domain/image.ts';
import { ensureImage, openDocker } from '../../src/isolation/docker/engine.ts';
import type { MachineImage } from '../../src/isolation/image.ts';

const CACHE_DIR = path.join(os.tmpdir(), 'kiln-test-docker');

/** Why there can be no daemon here; null when there can. */
export function dockerMissing(): string | null {
  if (process.getuid?.() !== 0) return 'only root can start a Docker daemon of its own';
  const missing = ['dockerd', 'containerd', 'mmdebstrap', 'flock'].filter((name) => !installed(name));
  return missing.length === 0 ? null : `not installed: ${missing.join(', ')} (see scripts/system-deps.sh)`;
}

export function installed(name: string): boolean {
  return ['/usr/bin', '/usr/sbin', '/bin', '/sbin'].some((dir) => existsSync(path.join(dir, name)));
}

export interface TestDocker {
  /** Path of its socket. */
  socket: string;
  /** Ends the daemon as a power cut would, and starts it again. */
  restart(): Promise<void>;
  stop(): Promise<void>;
}

/** One at a time: daemons share the host's firewall rules, so a second one would wipe those of the first. */
export async function startDocker(args: readonly string[] = []): Promise<TestDocker> {
  await mkdir(CACHE_DIR, { recursive: true });
  const dir = path.join(CACHE_DIR, `daemon-${process.pid}`);
  await mkdir(dir, { recursive: true });
  const socket = path.join(dir, 'docker.sock');
  const log = openSync(path.join(dir, 'log'), 'a');
  let daemon = await launch();

  async function launch() {
    const own = [
      ...['--data-root', path.join(dir, 'data'), '--exec-root', path.join(dir, 'exec')],
      ...['--pidfile', path.join(dir, 'pid'), '--host', `unix://${socket}`, '--bridge', 'none', ...args],
    ];
    const lock = path.join(CACHE_DIR, 'lock');
    // Without --close the containers, which outlive a restart, would hold the lock.
    const child = spawn('flock', ['--close', lock, 'dockerd', ...own], { stdio: ['ignore', log, log] });
    const docker = openDocker(socket).client();
    // Another test file may hold the lock for minutes.
    for (const give_up_at = Date.now() + 15 * 60_000; ; await sleep(100)) {
      if (await docker.ping().catch(() => null)) return child;
      if (child.exitCode !== null || Date.now() > give_up_at)
        throw new Error(
          `dockerd did not start: ${(await readFile(path.join(dir, 'log'), 'utf8')).slice(-2000)}`,
        );
    }
  }
  async function end(signal: NodeJS.Signals): Promise<void> {
    if (daemon.exitCode !== null || daemon.signalCode !== null) return;
    process.kill(Number(await readFile(path.join(dir, 'pid'), 'utf8')), signal);
    await once(daemon, 'exit');
  }
  return {
    socket,
    async restart() {
      await end('SIGTERM');
      daemon = await launch();
    },
    async stop() {
      const docker = openDocker(socket).client();
      for (const one of await docker.listContainers({ all: true }).catch(() => []))
        await docker
          .getContainer(one.Id)
          .remove({ force: true, v: true })
          .catch(() => undefined);
      for (const one of await docker.listNetworks().catch(() => []))
        await docker
          .getNetwork(one.Id)
          .remove()
          .catch(() => undefined);
      await end('SIGTERM');
      // The daemon leaves its network namespace mounted: the folder could not be removed.
      for (const line of (await readFile('/proc/mounts', 'utf8')).split('\n').reverse()) {
        const at = line.split(' ')[1];
        if (at?.startsWith(`${dir}/`)) spawnSync('umount', [at], { stdio: 'ignore' });
      }
      for (let tries = 0; tries < 20; tries++) {
        const gone = await rm(dir, { recursive: true, force: true }).then(
          () => true,
          () => false,
        );
        if (gone) return;
        await sleep(100);
      }
    },
  };
}

/** dash, coreutils and what apps need to run, unpacked without an installer: no accounts, no package database. */
const PACKAGES = [
  ...['base-files', 'base-passwd', 'dash', 'coreutils', 'grep', 'sed', 'findutils', 'procps', 'util-linux'],
  ...['libc-bin', 'libstdc++6'],
];
/** So that whatever a test finds in these is the host's. */
const REMOVED = ['root', 'run', 'var', 'boot', 'opt', 'srv', 'media', 'mnt', 'usr/share', 'usr/include'];

/** Root file system of the base image as a tar; made once per machine, 35 s. */
export async function baseTar(): Promise<string> {
  const key = createHash('sha256')
    .update(`${PACKAGES}${REMOVED}${process.version}`)
    .digest('hex')
    .slice(0, 12);
  const file = path.join(CACHE_DIR, `base-${key}.tar`);
  if (existsSync(file)) return file;
  await mkdir(CACHE_DIR, { recursive: true });
  const root = path.join(CACHE_DIR, `base-${key}-${process.pid}`);
  const options = { timeout: 300_000, stdio: ['ignore', 'ignore', 'inherit'] as const };
  try {
    execFileSync(
      'mmdebstrap',
      [
        '--quiet',
        '--variant=extract',
        `--include=${PACKAGES.join(',')}`,
        '--format=directory',
        codename(),
        root,
      ],
      { ...options, stdio: [...options.stdio] },
    );
    for (const dir of [...REMOVED, 'etc/shadow', 'etc/ssl', 'usr/lib/x86_64-linux-gnu/perl', 'usr/bin/perl'])
      await rm(path.join(root, dir), { recursive: true, force: true });
    for (const dir of ['usr/local/bin', 'workspace', 'var/tmp'])
      await mkdir(path.join(root, dir), { recursive: true });
    await rm(path.join(root, 'var'), { recursive: true });
    await copyFile(process.execPath, path.join(root, 'usr/local/bin/node'));
    execFileSync(
      'tar',
      ['--sort=name', '--mtime=@1000000000', '--numeric-owner', '-cf', `${file}.new`, '-C', root, '.'],
      {
        ...options,
        stdio: [...options.stdio],
      },
    );
    await rename(`${file}.new`, file);
  } finally {
    await rm(root, { recursive: true, force: true });
  }
  return file;
}

function codename(): string {
  return execFileSync('sh', ['-c', '. /etc/os-release && echo "$VERSION_CODENAME"'], {
    encoding: 'utf8',
  }).trim();
}

/** An image of one layer, as the store would give it. */
export async function imageOf(
  layer_file: string,
  config: NonNullable<MachineImage['config']['config']>,
): Promise<MachineImage> {
  const size = (await stat(layer_file)).size;
  const diff_id = await digestOf(createReadStream(layer_file));
  const whole = {
    ...{ architecture: process.arch === 'x64' ? 'amd64' : process.arch, os: 'linux', config },
    rootfs: { type: 'layers' as const, diff_ids: [diff_id] },
  };
  const config_bytes = Buffer.from(JSON.stringify(whole));
  const config_digest = `sha256:${createHash('sha256').update(config_bytes).digest('hex')}`;
  const manifest = {
    schemaVersion: 2 as const,
    mediaType: MEDIA_TYPES.manifest,
    config: { mediaType: MEDIA_TYPES.config, digest: config_digest, size: config_bytes.length },
    layers: [{ mediaType: MEDIA_TYPES.layer_tar, digest: diff_id, size }],
  };
  return {
    digest: `sha256:${createHash('sha256').update(JSON.stringify(manifest)).digest('hex')}`,
    manifest,
    config: whole,
    blob: async (of) => (of === diff_id ? createReadStream(layer_file) : bytes(config_bytes)),
    dockerArchive() {
      const pack = tar.pack();
      const names = [{ Config: 'config.json', RepoTags: null, Layers: ['layer.tar'] }];
      void (async () => {
        pack.entry({ name: 'config.json' }, config_bytes);
        pack.entry({ name: 'manifest.json' }, JSON.stringify(names));
        await pipeline(createReadStream(layer_file), pack.entry({ name: 'layer.tar', size }));
        pack.finalize();
      })().catch((error) => pack.destroy(error as Error));
      return pack.pipe(new PassThrough()) as Readable;
    },
    squashfs: () => Promise.reject(new Error('not for containers')),
  };
}

function bytes(content: Buffer): Readable {
  return new PassThrough().end(content) as unknown as Readable;
}

async function digestOf(stream: Readable): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of stream) hash.update(chunk as Buffer);
  return `sha256:${hash.digest('hex')}`;
}

/** The base image with a command of its own. */
export async function baseImage(config: MachineImage['config']['config'] = {}): Promise<MachineImage> {
  return await imageOf(await baseTar(), {
    Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'],
    ...config,
  });
}

/** `name` is `localhost:<port>/repository:tag`; the daemon keeps nothing of it. */
export async function pushImage(socket: string, image: MachineImage, name: string): Promise<void> {
  const docker = openDocker(socket).client();
  const at = name.lastIndexOf(':');
  await docker
    .getImage(await ensureImage(docker, 'push', image))
    .tag({ repo: name.slice(0, at), tag: name.slice(at + 1) });
  const pushed = await docker.getImage(name).push({ authconfig: { auth: '' } });
  await new Promise((resolve, reject) =>
    docker.modem.followProgress(pushed, (error, out) => (error ? reject(error) : resolve(out))),
  );
  await docker.getImage(name).remove();
}
