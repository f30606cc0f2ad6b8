/** The machine behind an instance row: its release laid out, its environment, its port, its log. */
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { type Failure, failure } from '../domain/failure.ts';
import type { Instance } from '../domain/instance.ts';
import type { Release } from '../domain/release.ts';
import type { Version } from '../domain/version.ts';
import type { GateReplica } from '../health/gate.ts';
import type { Limits, Machine, MachineExit } from '../isolation/driver.ts';
import { openEnv, secretValues, type VersionEnv } from '../pipeline/version-env.ts';
import { type ReleaseJson, unpackRootfs } from '../release/artifact.ts';
import { type LogWriter, openLog } from '../store/logs.ts';
import { releaseById } from '../store/release.ts';
import { versionSecrets } from '../store/version.ts';
import type { EngineContext } from './context.ts';
import { adoptImage, appPort, startImage } from './image-instance.ts';
import { choosePort } from './ports.ts';

export interface Running {
  id: string;
  version: Version;
  machine: Machine;
  log: LogWriter;
  host: string;
  /** On this host. */
  port: number;
  /** Where the app listens inside a machine with a network of its own; null when that is `port`. */
  app_port: number | null;
  /** Set before we end it ourselves, so that its end is no crash. */
  ending: boolean;
  failed_probes: number;
  healthy_since: number | null;
}

export function instanceDir(ctx: EngineContext, id: string): string {
  return path.join(ctx.folders.instances, id);
}

export function instanceLogPath(ctx: EngineContext, id: string): string {
  return path.join(ctx.folders.instance_logs, `${id}.jsonl`);
}

/** Lays the release out (its digest is verified on the way) and starts it. `ports`: those our instances hold now. */
export async function startMachine(
  ctx: EngineContext,
  instance: Instance,
  version: Version,
  ports: Set<number>,
): Promise<Running> {
  const release = await releaseById(ctx.db, instance.release_id);
  const recipe = release.kind === 'oci' ? null : await layOut(ctx, instance, release);
  const env = await runEnv(ctx, version);
  // The app inside an image has a network of its own: which port of the host leads there does not matter to it.
  const declared = recipe ? (version.run_settings?.port ?? recipe.port) : null;
  const port = await choosePort(declared, ports);
  const log = instanceLog(ctx, instance.id, env);
  const limits = instanceLimits(ctx, version);
  try {
    const machine = recipe
      ? await startRootfs(ctx, { instance, version, recipe, env: env.vars, declared, port, limits, log })
      : await startImage(ctx, { instance, version, release, env: env.vars, host_port: port, limits, log });
    return running(instance, version, { machine, log, host: '127.0.0.1', port, release });
  } catch (error) {
    ports.delete(port);
    await log.close();
    throw error;
  }
}

/** Takes over a machine that outlived its engine. Null when there is none. */
export async function adoptMachine(
  ctx: EngineContext,
  instance: Instance,
  version: Version,
  ports: Set<number>,
): Promise<Running | null> {
  const release = await releaseById(ctx.db, instance.release_id);
  if (release.kind !== 'oci' || instance.port === null) return null;
  const log = instanceLog(ctx, instance.id, await runEnv(ctx, version));
  const limits = instanceLimits(ctx, version);
  const machine = await adoptImage(ctx, { instance, version, release, limits, log });
  if (machine === null) {
    await log.close();
    return null;
  }
  ports.add(instance.port);
  log.note('goes on under a new engine');
  return running(instance, version, {
    machine,
    log,
    host: instance.host ?? '127.0.0.1',
    port: instance.port,
    release,
  });
}

function running(
  instance: Instance,
  version: Version,
  of: Pick<Running, 'machine' | 'log' | 'host' | 'port'> & { release: Release },
): Running {
  const { release, ...rest } = of;
  const app_port = release.kind === 'oci' ? appPort(version, release) : null;
  return {
    id: instance.id,
    version,
    app_port,
    ...rest,
    ending: false,
    failed_probes: 0,
    healthy_since: null,
  };
}

async function runEnv(ctx: EngineContext, version: Version): Promise<VersionEnv> {
  const secrets = await versionSecrets(ctx.db, version.id);
  return openEnv(ctx.vault, version.id, 'run', secrets.env_encrypted);
}

function instanceLog(ctx: EngineContext, id: string, env: VersionEnv): LogWriter {
  return openLog(instanceLogPath(ctx, id), {
    max_bytes: ctx.bounds.log_bytes,
    secrets: secretValues(env),
    on_full: 'rotate',
  });
}

function instanceLimits(ctx: EngineContext, version: Version): Limits {
  return {
    time_ms: null,
    memory_bytes: memoryLimit(ctx, version),
    processes: ctx.bounds.instance_processes,
    disk_bytes: ctx.bounds.instance_disk_bytes,
    log_bytes: Number.MAX_SAFE_INTEGER,
    on_log_limit: 'drop',
  };
}

function startRootfs(
  ctx: EngineContext,
  of: {
    instance: Instance;
    version: Version;
    recipe: ReleaseJson;
    env: Record<string, string>;
    declared: number | null;
    port: number;
    limits: Limits;
    log: LogWriter;
  },
): Promise<Machine> {
  const { instance, version, recipe, declared, port, log } = of;
  const moved_port = declared === null || declared === port ? null : { declared, assigned: port };
  const instead = moved_port === null ? '' : ` in place of ${declared}, which cannot be had`;
  log.note(`starting on port ${port}${instead}: ${recipe.command}`);
  return ctx.driver.start({
    id: instance.id,
    kind: 'instance',
    workspace_dir: path.join(instanceDir(ctx, instance.id), 'workspace'),
    cwd: recipe.cwd,
    command: recipe.command,
    env: {
      ...recipe.env,
      KILN_DEPLOYMENT_ID: version.deployment_id,
      KILN_VERSION_ID: version.id,
      ...of.env,
      PORT: String(port),
    },
    limits: of.limits,
    moved_port,
    on_output: (stream, chunk) => log.write(stream, chunk),
  });
}

async function layOut(ctx: EngineContext, instance: Instance, release: Release): Promise<ReleaseJson> {
  const into = instanceDir(ctx, instance.id);
  await rm(into, { recursive: true, force: true });
  return unpackRootfs(ctx.objects, {
    object_key: release.object_key,
    sha256: release.sha256,
    into,
    // What was packed under the artifact limit unpacks to no more than that, plus what the tar itself takes.
    max_bytes: ctx.limits.artifact_bytes * 2,
    max_files: MAX_RELEASE_FILES,
  });
}

const MAX_RELEASE_FILES = 2_000_000;

function memoryLimit(ctx: EngineContext, version: Version): number {
  return version.run_settings?.memory_bytes ?? ctx.health.instance_memory_bytes;
}

/**
 * To call when nobody answers at 127.0.0.1: an app that listens on ::1 only (`listen(port, 'localhost')` can mean
 * that) is reached there from now on. The socket has to be the machine's own; the port may be another's over there.
 */
export async function followToIpv6(run: Running): Promise<void> {
  if (run.app_port !== null) return;
  const here = (await run.machine.listening()).filter(({ port }) => port === run.port);
  if (here.length === 0 || here.some(({ address }) => address !== '::1') || run.host === '::1') return;
  run.host = '::1';
  run.log.note(`the app listens on [::1]:${run.port} only, and is reached there`);
}

export function toReplica(ctx: EngineContext, run: Running): GateReplica {
  return {
    id: run.id,
    get host() {
      return run.host;
    },
    port: run.port,
    ...(run.app_port === null ? {} : { app_port: run.app_port }),
    refused: () => followToIpv6(run),
    answersItself: async () =>
      run.app_port === null ? ((await run.machine.ownsPort?.(run.port)) ?? null) : null,
    exited: run.machine.exited,
    listening: () => run.machine.listening(),
    log_tail: () => run.log.tail(50),
    memory_limit_bytes: memoryLimit(ctx, run.version),
  };
}

/** Why a live instance ended although nobody ended it. */
export function crashFailure(exit: MachineExit, log_tail: string[]): Failure {
  const out_of_memory = exit.reason === 'out_of_memory';
  const how = exit.signal ? `by signal ${exit.signal}` : `with exit code ${exit.exit_code}`;
  return failure({
    stage: 'health',
    code: out_of_memory ? 'APP_OUT_OF_MEMORY' : 'APP_CRASHED',
    message: out_of_memory
      ? 'The app needed more than its memory limit.'
      : `The app ended by itself, ${how}.`,
    next_step: out_of_memory
      ? 'Make it use less memory, or raise the limit (`kiln scale NAME --size medium`) and publish again.'
      : 'Read the end of the instance log; a server must keep running.',
    exit_code: exit.exit_code,
    signal: exit.signal,
    out_of_memory,
    log_tail,
  });
}
