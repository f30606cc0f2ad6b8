/**
 * What a running operation hands to its stages. A stage takes the previous stage's frozen value and returns a new
 * one, or a `Failure` when the user's source, app or wish ended it; an exception is a fault of ours.
 *
 * Everything a stage writes goes through `record` or, at the end, `recordOutcome`: one transaction that begins by
 * checking the lease (I5) and that holds the value together with the event that tells of it. What is written in it may
 * be tried more than once (store/transact.ts), and every stage may run twice (after a takeover).
 */
import type { Deployment } from '../domain/deployment.ts';
import type { EventType } from '../domain/event.ts';
import type { Failure, Stage } from '../domain/failure.ts';
import type { Instance } from '../domain/instance.ts';
import type { Operation } from '../domain/operation.ts';
import type { Version } from '../domain/version.ts';
import type { GateReplica } from '../health/gate.ts';
import type { Cache } from '../isolation/cache.ts';
import type { IsolationDriver, Limits } from '../isolation/driver.ts';
import type { ImageBuilder } from '../isolation/image-builder.ts';
import type { NetworkPolicy } from '../isolation/network/policy.ts';
import type { ImageRuntime } from '../isolation/runtime.ts';
import type { Verifier } from '../release/verify.ts';
import type { Db, Trx } from '../store/db.ts';
import type { LogWriter } from '../store/logs.ts';
import type { ObjectStore } from '../store/objects/port.ts';
import type { Outcome } from '../store/operation.ts';
import type { NewId } from '../store/tenant.ts';
import type { Vault } from '../store/vault.ts';

export type Result<T> = { ok: true; value: T } | { ok: false; failure: Failure };
export const ok = <T>(value: T): Result<T> => ({ ok: true, value });
export const failed = (failure: Failure): { ok: false; failure: Failure } => ({ ok: false, failure });

export interface PipelineLimits {
  source: { max_bytes: number; max_files: number };
  artifact_bytes: number;
  /** Of one build, all its commands together. */
  build: Limits & { time_ms: number };
}

/** Defaults for what neither the publish nor the deployment says. */
export interface HealthDefaults {
  grace_ms: number;
  startup_timeout_ms: number;
  probe_interval_ms: number;
  probe_timeout_ms: number;
  instance_memory_bytes: number;
}

export interface Ports {
  db: Db;
  objects: ObjectStore;
  verifier: Verifier;
  /** Sandbox execs and the instances of rootfs releases run here: always a driver of host processes. */
  driver: IsolationDriver;
  /** What a rootfs release must have been built on to run here; see IsolationDriver.base. */
  base: string;
  /** Builds run here; the same driver, or one that starts from a base image. */
  builder: IsolationDriver;
  builder_base: string;
  /** Runs OCI releases. Null where nothing does. */
  runtime: ImageRuntime | null;
  /** Builds Dockerfiles. Null where nothing does. */
  image_builder: ImageBuilder | null;
  /** Why there is no runtime or no image builder, and what to install. */
  images_missing: string;
  /** What builds and execs may reach. */
  network: NetworkPolicy;
  vault: Vault;
  newId: NewId;
  limits: PipelineLimits;
  health: HealthDefaults;
  /** The package managers' caches of a deployment; null for builds without. */
  openCache: ((deployment_id: string) => Promise<Cache>) | null;
  /** Scratch space on the same file system as the object store. */
  tmp_dir: string;
  /** Scratch of a deployment (its build happens there; emptied before, out of the way by the outcome) or of an operation. */
  workDir(id: string): string;
}

/** Starting and ending the instances that a gate is about to prove; the engine's supervisor. */
export interface GatingInstances {
  /** Their rows are written through the run's `record`. */
  start(of: Pick<Run, 'version' | 'operation' | 'record' | 'log'>): Promise<GateReplica[]>;
  /** Ends the machines of retired rows, as far as they run here; resolves when they are gone. */
  end(retired: readonly Instance[]): Promise<void>;
}

export interface Run extends Ports {
  operation: Operation;
  deployment: Deployment;
  version: Version;
  /** Aborted by a cancel, a lost lease, a stage deadline or the end of the engine; the reason says which. */
  signal: AbortSignal;
  log: LogWriter;
  instances: GatingInstances;
  record<T>(write: (trx: Trx) => Promise<T>): Promise<T>;
  /** For what changes the deployment: its lock comes before all others, that of the operation included. */
  recordOutcome<T>(write: (trx: Trx, deployment: Deployment) => Promise<T>): Promise<T>;
  /** Records the stage, its deadline and an event, and arms the deadline. */
  enter(stage: Stage, deadline_ms: number): Promise<void>;
  event(trx: Trx, type: EventType, data?: Record<string, unknown>): Promise<void>;
  /** Writes the outcome into the operation row and wakes whoever waits for it. */
  finish(trx: Trx, outcome: Outcome): Promise<void>;
}
