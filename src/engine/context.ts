/** What every part of the engine is given: its ports, its limits and timings, and the little they share. */
import type { Ports } from '../pipeline/run.ts';
import type { Database } from '../store/db.ts';
import type { Folders } from './folders.ts';

export type Log = (level: 'info' | 'warn' | 'error', message: string, data?: Record<string, unknown>) => void;

/** What the engine needs of an edge in the same process; other edges acknowledge through the database. */
export interface EdgePort {
  waitForGeneration(generation: number, timeout_ms: number): Promise<boolean>;
  onIdle(instance_id: string, timeout_ms: number): Promise<boolean>;
  closeConnections(instance_id: string): void;
}

export interface Timings {
  lease_ms: number;
  renew_ms: number;
  reconcile_ms: number;
  /** An engine silent for this long counts as dead. */
  engine_silent_ms: number;
  /** How long a replaced version keeps running, for an immediate rollback. */
  warm_ms: number;
  /** How long in-flight requests and WebSockets of a replaced instance may take. */
  drain_ms: number;
  /** From TERM to KILL. */
  stop_grace_ms: number;
}

export interface EngineLimits {
  /** Publishes that run side by side, over all deployments. */
  concurrency: number;
  /** Of one deployment, waiting or running, in each lane (queue.ts). */
  queued_operations: number;
  replicas: number;
  /** Replaced versions of one deployment that are kept running. */
  warm_versions: number;
  instance_processes: number;
  instance_disk_bytes: number;
  log_bytes: number;
  /** Restarts without a healthy spell in between before an instance is given up. */
  crash_restarts: number;
  /** Times an operation is taken up again after its engine died. */
  attempts: number;
}

export interface Retention {
  days: number;
  /** The newest versions of each deployment that are never collected. */
  keep_versions: number;
}

export interface EngineContext extends Ports {
  id: string;
  database: Database;
  folders: Folders;
  edge: EdgePort;
  timings: Timings;
  bounds: EngineLimits;
  retention: Retention;
  /** Answers to requests with an idempotency key are kept this long. */
  idempotency_retention_ms: number;
  /** Of the package caches of all deployments. */
  cache_total_bytes: number;
  /** Whether webhooks may reach addresses of this machine and of private networks, and use plain http. */
  allow_private_webhooks: boolean;
  /** Registries (`host` or `host:port`) that images may be pushed to. */
  push_registries: readonly string[];
  /** `http://<slug>.<host label of its workspace>.localhost:7080` of a deployment. */
  urlOf(slug: string, host_label: string): string;
  now(): Date;
  say: Log;
}
