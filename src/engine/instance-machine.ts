/** The machine behind an instance row: its release laid out, its environment, its port, its log. */
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { type Failure, failure } from '../domain/failure.ts';
import type { Instance } from '../domain/instance.ts';
import type { Version } from '../domain/version.ts';
import type { GateReplica } from '../health/gate.ts';
import type { Machine, MachineExit } from '../isolation/driver.ts';
import { openEnv, secretValues } from '../pipeline/version-env.ts';
import { type ReleaseJson, unpackRootfs } from '../release/artifact.ts';
import { type LogWriter, openLog } from '../store/logs.ts';
import { releaseById } from '../store/release.ts';
import { versionSecrets } from '../store/version.ts';
import type { EngineContext } from './context.ts';
import { choosePort } from './ports.ts';

export interface Running {
  id: string;
  version: Version;
  machine: Machine;
  log: LogWriter;
  host: string;
  port: number;
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
  const recipe = await layOut(ctx, instance);
  const secrets = await versionSecrets(ctx.db, version.id);
  const env = openEnv(ctx.vault, version.id, 'run', secrets.env_encrypted);
  const port = await choosePort(version.run_settings?.port ?? recipe.port, ports);
  const log = openLog(instanceLogPath(ctx, instance.id), {
    max_bytes: ctx.bounds.log_bytes,
    secrets: secretValues(env),
    on_full: 'rotate',
  });
  log.note(`starting on port ${port}: ${recipe.command}`);
  try {
    const machine = await ctx.driver.start({
      id: instance.id,
      kind: 'instance',
      workspace_dir: path.join(instanceDir(ctx, instance.id), 'workspace'),
      cwd: recipe.cwd,
      command: recipe.command,
      env: {
        ...recipe.env,
        KILN_DEPLOYMENT_ID: version.deployment_id,
        KILN_VERSION_ID: version.id,
        ...env.vars,
        PORT: String(port),
      },
      limits: {
        time_ms: null,
        memory_bytes: memoryLimit(ctx, version),
        processes: ctx.bounds.instance_processes,
        disk_bytes: ctx.bounds.instance_disk_bytes,
        log_bytes: Number.MAX_SAFE_INTEGER,
        on_log_limit: 'drop',
      },
      on_output: (stream, chunk) => log.write(stream, chunk),
    });
    const state = { ending: false, failed_probes: 0, healthy_since: null };
    return { id: instance.id, version, machine, log, host: '127.0.0.1', port, ...state };
  } catch (error) {
    ports.delete(port);
    await log.close();
    throw error;
  }
}

async function layOut(ctx: EngineContext, instance: Instance): Promise<ReleaseJson> {
  const into = instanceDir(ctx, instance.id);
  await rm(into, { recursive: true, force: true });
  const release = await releaseById(ctx.db, instance.release_id);
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
    refused: () => followToIpv6(run),
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
