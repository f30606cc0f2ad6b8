/**
 * Configuration: command line over environment over defaults. This file and main.ts are the only readers of the
 * environment. Every limit of Kiln is here, with its unit in its name.
 */
import os from 'node:os';
import path from 'node:path';
import { MAX_REPLICAS } from './domain/deployment.ts';
import { KilnError } from './domain/errors.ts';
import type { EngineLimits, Retention, Timings } from './engine/context.ts';
import type { DriverName } from './isolation/driver.ts';
import type { NetworkPolicy } from './isolation/network/policy.ts';
import type { RuntimeName } from './isolation/runtime.ts';
import type { HealthDefaults, PipelineLimits } from './pipeline/run.ts';

export interface Config {
  data_dir: string;
  /** Null: PGlite in the data folder. */
  database_url: string | null;
  api: { host: string; port: number };
  edge: { host: string; port: number };
  /** Deployments are at `<slug>.<workspace>.<base_domain>`. */
  base_domain: string;
  /** Where builds run. */
  isolation: 'auto' | DriverName;
  /** What runs OCI releases; `host`: nothing does, only releases that start from this machine's own files. */
  instance_isolation: 'auto' | 'host' | RuntimeName;
  images: ImageOptions;
  /** What builds and execs may reach. */
  network: NetworkPolicy;
  cache: { deployment_bytes: number; total_bytes: number };
  limits: PipelineLimits;
  health: HealthDefaults;
  timings: Timings;
  bounds: EngineLimits;
  retention: Retention;
  api_limits: ApiLimits;
  allow_private_webhooks: boolean;
  push_registries: string[];
  /** Hold every answer of the API to its schema; one that does not fit is a 500 and a line in the log. */
  strict_answers: boolean;
  log_level: 'info' | 'warn' | 'error' | 'silent';
}

/** Of the drivers that start from images: docker, qemu, firecracker. */
export interface ImageOptions {
  /** A registry reference, a tar file, or null for the builder image made by `kiln builder-image build`. */
  base_image: string | null;
  /** May QEMU emulate a processor where there is no KVM that works? Slow. */
  allow_emulation: boolean;
  docker_host: string | null;
  /** Address of a buildkitd; null: the one in Docker. */
  buildkit_host: string | null;
  /** Folder with ca.pem, cert.pem and key.pem, for a buildkitd over TCP. */
  buildkit_tls: string | null;
  build_cpus: number;
  warm_builders: number;
}

export interface ApiLimits {
  body_bytes: number;
  file_bytes: number;
  archive_bytes: number;
  archive_files: number;
  sandboxes: number;
  sandbox_snapshots: number;
  deployments: number;
  queued_operations: number;
  idempotency_retention_ms: number;
}

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;
const SECOND = 1000;
/** More MiB than any machine has: catches a number given in bytes. */
const MANY = 1024 * 1024;
const QUEUED_OPERATIONS = 200;

const DRIVER_NAMES = ['firecracker', 'qemu', 'docker', 'bubblewrap', 'process'] as const;
const RUNTIME_NAMES = ['docker', 'qemu'] as const;
/** `host`, `*.host`, an address, each with or without a port. */
const DATABASE_URL = /^postgres(?:ql)?:\/\/\S*$/i;
/** Without a port and without a dot at either end. */
const HOST_NAME =
  /^(?=.{1,190}$)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*$/i;
const NETWORK_NAME = /^(\*\.)?([a-z0-9][a-z0-9.-]*|\[[0-9a-f:.]+\])(:\d{1,5})?$/;

export type Env = Record<string, string | undefined>;

/** What `kiln up` and its like take, as text from the command line; the environment's name is `KILN_` + upper case. */
export const OPTIONS = {
  data: { about: 'data folder (default ~/.kiln)' },
  database: { about: 'postgres:// URL of a server; without it, an embedded database in the data folder' },
  'api-host': { about: 'address the API listens on (default 127.0.0.1)' },
  'api-port': { about: 'port of the API (default 7070, 0 for any)' },
  'edge-host': { about: 'address the edge listens on (default 127.0.0.1)' },
  'edge-port': { about: 'port of the edge (default 7080, 0 for any)' },
  'base-domain': { about: 'deployments are at <slug>.<workspace>.<base-domain> (default localhost)' },
  isolation: {
    about: 'where builds run: auto, firecracker, qemu, docker, bubblewrap or process (default auto)',
  },
  'instance-isolation': {
    about: 'what runs OCI images: auto, docker, qemu, or host for nothing (default auto)',
  },
  'allow-emulation': { about: 'yes or no: may qemu run without KVM, slowly (default no)' },
  'base-image': {
    about:
      'what builds in docker and microVMs start from: a registry reference or a tar (default the builder image)',
  },
  'docker-host': { about: 'socket of a Docker engine (default unix:///var/run/docker.sock)' },
  'buildkit-host': { about: 'address of a buildkitd for Dockerfiles (default the one inside Docker)' },
  'buildkit-tls': { about: 'folder with ca.pem, cert.pem and key.pem for a buildkitd at tcp://…' },
  'build-cpus': { about: 'processors of one microVM build (default 2)' },
  'warm-builders': {
    about: 'microVMs kept booted for the next builds; each holds about 150 MiB (default 0)',
  },
  'build-network': { about: 'what builds may reach: none, registries or open (default open)' },
  'network-allow': {
    about: 'hosts that builds may reach besides, separated by commas (*.example.com, 10.0.0.5:8443)',
  },
  'cache-limit': { about: 'MiB of package caches of one deployment, 0 for none (default 2048)' },
  'cache-total': { about: 'MiB of package caches of all deployments (default 10240)' },
  concurrency: { about: 'publishes that run side by side (default 2)' },
  grace: { about: 'seconds of unbroken health before a switch (default 30)' },
  'startup-limit': { about: 'seconds until the first healthy answer (default 60)' },
  'warm-time': { about: 'seconds a replaced version keeps running (default 300)' },
  'drain-time': { about: 'seconds that requests of a replaced version may still take (default 30)' },
  'build-time-limit': { about: 'seconds of one build (default 900)' },
  'build-memory': { about: 'MiB of one build (default 4096)' },
  'build-disk': { about: 'MiB a build may write (default 8192)' },
  'source-limit': { about: 'MiB of one source (default 2048)' },
  'source-files': { about: 'files of one source (default 200000)' },
  'artifact-limit': { about: 'MiB of one release (default 1024)' },
  'instance-memory': { about: 'MiB of one instance (default 1024)' },
  'retention-days': { about: 'days that replaced versions can be rolled back to (default 30)' },
  'keep-versions': { about: 'newest versions of a deployment that are always kept (default 10)' },
  'push-registries': {
    about: 'registries that images may be pushed to, separated by commas (host or host:port)',
  },
  'allow-private-webhooks': {
    about: 'yes or no: may webhooks reach private and loopback addresses, and plain http (default no)',
  },
  'strict-answers': {
    about: 'yes or no: check every answer of the API against its schema before it is sent (default no)',
  },
  'log-level': { about: 'info, warn, error or silent (default info)' },
} as const;

export type OptionName = keyof typeof OPTIONS;
export type Flags = Partial<Record<OptionName, string>>;

/** Throws VALIDATION_ERROR naming the option. */
export function readConfig(env: Env, flags: Flags = {}): Config {
  const said = new Options(env, flags);
  const config: Config = {
    data_dir: dataDir(env, flags),
    database_url: said.matching('database', DATABASE_URL, 'postgres://user:password@host:5432/name'),
    api: { host: said.text('api-host') ?? '127.0.0.1', port: said.number('api-port', 7070, 0, 65_535) },
    edge: { host: said.text('edge-host') ?? '127.0.0.1', port: said.number('edge-port', 7080, 0, 65_535) },
    base_domain: baseDomain(said),
    isolation: said.choice('isolation', 'auto', ['auto', ...DRIVER_NAMES]),
    instance_isolation: said.choice('instance-isolation', 'auto', ['auto', 'host', ...RUNTIME_NAMES]),
    images: imageOptions(said),
    network: {
      mode: said.choice('build-network', 'open', ['none', 'registries', 'open'] as const),
      allow: said.list('network-allow', NETWORK_NAME),
    },
    cache: {
      deployment_bytes: said.number('cache-limit', 2048, 0, MANY) * MIB,
      total_bytes: said.number('cache-total', 10_240, 0, MANY) * MIB,
    },
    limits: pipelineLimits(said),
    health: {
      grace_ms: said.number('grace', 30, 0, 3600) * SECOND,
      startup_timeout_ms: said.number('startup-limit', 60, 1, 3600) * SECOND,
      probe_interval_ms: SECOND,
      probe_timeout_ms: 5 * SECOND,
      instance_memory_bytes: said.number('instance-memory', 1024, 16, MANY) * MIB,
    },
    timings: {
      lease_ms: 10 * SECOND,
      renew_ms: 2 * SECOND,
      reconcile_ms: 2 * SECOND,
      engine_silent_ms: 15 * SECOND,
      warm_ms: said.number('warm-time', 300, 0, 24 * 3600) * SECOND,
      drain_ms: said.number('drain-time', 30, 0, 3600) * SECOND,
      stop_grace_ms: 10 * SECOND,
    },
    bounds: {
      concurrency: said.number('concurrency', 2, 1, 64),
      queued_operations: QUEUED_OPERATIONS,
      replicas: MAX_REPLICAS,
      warm_versions: 2,
      instance_processes: 512,
      instance_disk_bytes: 4 * GIB,
      log_bytes: 16 * MIB,
      crash_restarts: 10,
      attempts: 5,
    },
    retention: {
      days: said.number('retention-days', 30, 0, 36_500),
      keep_versions: said.number('keep-versions', 10, 1, 100_000),
    },
    api_limits: {
      body_bytes: 64 * MIB,
      file_bytes: 64 * MIB,
      archive_bytes: 4 * GIB,
      archive_files: sourceFiles(said),
      sandboxes: 10_000,
      sandbox_snapshots: 10_000,
      deployments: 10_000,
      queued_operations: QUEUED_OPERATIONS,
      idempotency_retention_ms: 24 * 3600 * SECOND,
    },
    push_registries: said.list('push-registries', NETWORK_NAME),
    allow_private_webhooks: said.choice('allow-private-webhooks', 'no', ['yes', 'no'] as const) === 'yes',
    strict_answers: said.choice('strict-answers', 'no', ['yes', 'no'] as const) === 'yes',
    log_level: said.choice('log-level', 'info', ['info', 'warn', 'error', 'silent'] as const),
  };
  refuseOpenProcessDriver(config);
  return config;
}

function baseDomain(said: Options): string {
  const name = said.matching('base-domain', HOST_NAME, 'a host name such as apps.example.com');
  return name?.toLowerCase() ?? 'localhost';
}

function imageOptions(said: Options): ImageOptions {
  return {
    base_image: said.text('base-image'),
    allow_emulation: said.choice('allow-emulation', 'no', ['yes', 'no'] as const) === 'yes',
    docker_host: said.text('docker-host'),
    buildkit_host: said.text('buildkit-host'),
    buildkit_tls: said.text('buildkit-tls'),
    build_cpus: said.number('build-cpus', 2, 1, 64),
    warm_builders: said.number('warm-builders', 0, 0, 100),
  };
}

function pipelineLimits(said: Options): PipelineLimits {
  return {
    source: {
      max_bytes: said.number('source-limit', 2048, 1, MANY) * MIB,
      max_files: sourceFiles(said),
    },
    artifact_bytes: said.number('artifact-limit', 1024, 1, MANY) * MIB,
    build: {
      time_ms: said.number('build-time-limit', 900, 1, 24 * 3600) * SECOND,
      memory_bytes: said.number('build-memory', 4096, 16, MANY) * MIB,
      processes: 1024,
      disk_bytes: said.number('build-disk', 8192, 1, MANY) * MIB,
      log_bytes: 32 * MIB,
      on_log_limit: 'kill',
    },
  };
}

function sourceFiles(said: Options): number {
  return said.number('source-files', 200_000, 1, 10_000_000);
}

/** What was said, by flag or by environment; every complaint names the option. */
class Options {
  readonly #env: Env;
  readonly #flags: Flags;

  constructor(env: Env, flags: Flags) {
    this.#env = env;
    this.#flags = flags;
  }

  text(name: OptionName): string | null {
    const value = this.#flags[name] ?? this.#env[`KILN_${name.replaceAll('-', '_').toUpperCase()}`];
    return value === undefined || value === '' ? null : value;
  }

  /** Not shown in the complaint: a database address holds a password. */
  matching(name: OptionName, pattern: RegExp, example: string): string | null {
    const said = this.text(name);
    if (said === null || pattern.test(said)) return said;
    throw new KilnError('VALIDATION_ERROR', `--${name} takes ${example}, not what it was given.`);
  }

  number(name: OptionName, fallback: number, min: number, max: number): number {
    const said = this.text(name);
    if (said === null) return fallback;
    const value = Number(said);
    if (Number.isFinite(value) && value >= min && value <= max) return value;
    throw new KilnError(
      'VALIDATION_ERROR',
      `--${name} must be a number from ${min} to ${max}, not "${said}".`,
    );
  }

  list(name: OptionName, pattern: RegExp): string[] {
    const said = (this.text(name) ?? '').split(',').map((one) => one.trim().toLowerCase());
    const wrong = said.find((one) => one !== '' && !pattern.test(one));
    if (wrong !== undefined)
      throw new KilnError('VALIDATION_ERROR', `--${name} takes host, *.host or host:port, not "${wrong}".`);
    return said.filter((one) => one !== '');
  }

  choice<T extends string>(name: OptionName, fallback: T, choices: readonly T[]): T {
    const said = this.text(name) ?? fallback;
    if (choices.includes(said as T)) return said as T;
    throw new KilnError('VALIDATION_ERROR', `--${name} must be one of ${choices.join(', ')}, not "${said}".`);
  }
}

export function dataDir(env: Env, flags: Flags = {}): string {
  return path.resolve(flags.data ?? env.KILN_DATA ?? path.join(os.homedir(), '.kiln'));
}

const LOOPBACK = ['127.0.0.1', 'localhost', '::1'];

export function listensOnLoopbackOnly(config: Config): boolean {
  return LOOPBACK.includes(config.api.host) && LOOPBACK.includes(config.edge.host);
}

/** The process driver isolates nothing, so it is for the machine's own user only. */
export function refuseOpenProcessDriver(config: Config, chosen?: DriverName): void {
  if ((chosen ?? config.isolation) === 'process' && !listensOnLoopbackOnly(config))
    throw new KilnError(
      'UNSUPPORTED',
      'The process driver isolates nothing, so it works only while the API and the edge listen on loopback. Install bubblewrap, or use 127.0.0.1 as --api-host and --edge-host.',
    );
}
