/**
 * What the engine offers to the API: accepting intents (publish, retry, promote, rollback), changing what runs, and
 * looking after the house. Reading is done from the store; the outcome of an intent is what its operation row says.
 */

import type { Readable } from 'node:stream';
import type { Deployment } from '../domain/deployment.ts';
import type { EnvVar } from '../domain/env-var.ts';
import type { Operation } from '../domain/operation.ts';
import type { PlanOverrides } from '../domain/plan.ts';
import type { Release } from '../domain/release.ts';
import type { Sandbox } from '../domain/sandbox.ts';
import type { Version } from '../domain/version.ts';
import type { Machine } from '../isolation/driver.ts';
import type { KeyScope } from '../store/idempotency.ts';
import type { DoctorReport } from './doctor.ts';
import type { PushedImage, PushRequest } from './images.ts';
import type { GcReport } from './retention.ts';

export interface PublishInput {
  deployment: Deployment;
  sandbox: Sandbox;
  overrides: PlanOverrides;
  environment: string;
  /** Null: the deployment's setting, else the engine's default. Milliseconds. */
  grace_ms: number | null;
  startup_timeout_ms: number | null;
  promote: boolean;
  /** False: build even when an equal release is stored. */
  reuse: boolean;
  include_git: boolean;
  metadata: Record<string, unknown>;
  /** Runtime variables of this publish only, on top of the deployment's. */
  env: Record<string, string>;
  /** Recorded with the version in one transaction, so that a repeated request finds it (I6). */
  idempotency: KeyScope | null;
  attribution: {
    external_workspace_id: string | null;
    external_user_id: string | null;
    external_project_id: string | null;
  };
}

export interface Accepted {
  version: Version;
  operation: Operation;
  /** What the snapshot left out as a secret (`.env`, …), to be shown to the person who publishes. */
  secrets_left_out: string[];
}

export interface Switched {
  deployment: Deployment;
  version: Version;
  operation: Operation;
  /** True: instances are still being started and proved; the switch follows or the operation fails. */
  pending: boolean;
  /** What else is different from the version that was active: env names, command, port. */
  changes: SwitchChange[];
}

export interface SwitchChange {
  what: 'env' | 'start_command' | 'port' | 'health_check_path' | 'kind';
  name: string | null;
  from: string | null;
  to: string | null;
}

export interface ExecRequest {
  command: string;
  cwd: string;
  env: Record<string, string>;
  timeout_ms: number;
  on_output: (stream: 'stdout' | 'stderr', chunk: Buffer) => void;
}

export interface StoredWorkspace {
  sha256: string;
  object_key: string;
  size_bytes: number;
  files: number;
  secrets_left_out: string[];
}

export type WorkspaceSource = { stored: { object_key: string; sha256: string } } | { live: Sandbox };

export interface Engine {
  id: string;
  /** Takes back what an earlier life of this engine held, and sweeps what a crash left. Before any edge starts. */
  prepare(): Promise<void>;
  start(): Promise<void>;
  /** Stops taking work; machines and instances end. Unfinished operations are taken up at the next start. */
  stop(): Promise<void>;

  /** Freezes the sandbox (stage 1), then writes version and operation. Rejects without a row when freezing fails (I7). */
  publish(input: PublishInput): Promise<Accepted>;
  /** A new version from the stored snapshot and request of an earlier one. */
  retry(
    version: Version,
    by: { idempotency: KeyScope | null; promote: boolean; reuse: boolean },
  ): Promise<Accepted>;
  /** Accepts a rebuild of the version's snapshot for comparison. Errors: VERSION_NOT_READY, ARTIFACT_GONE. */
  verify(version: Version, by: { idempotency: KeyScope | null }): Promise<Operation>;
  /** An OCI layout in a tar. Errors: UNSUPPORTED (no image), ARTIFACT_GONE. */
  exportRelease(release: Release): Promise<Readable>;
  /** Errors: FORBIDDEN, UNSUPPORTED, ARTIFACT_GONE, VALIDATION_ERROR. */
  pushRelease(release: Release, to: PushRequest, signal: AbortSignal): Promise<PushedImage>;
  /** What a publish, retry or switch with this key made before its answer was lost, if anything. */
  acceptedBefore(subject: Record<string, unknown>): Promise<Accepted | null>;
  /** Makes an existing version active. Answers when switched, refused, or after `wait_ms` with `pending`. */
  promote(
    version: Version,
    by: { kind: 'promote' | 'rollback'; idempotency: KeyScope | null; wait_ms: number },
  ): Promise<Switched>;
  cancel(operation_id: string): Promise<Operation>;
  /** Resolves when the operation is finished or the time is over; the row as it then is. */
  waitForOperation(operation_id: string, timeout_ms: number, signal?: AbortSignal): Promise<Operation>;

  /** 0 stops it: no instance, and the edge answers 503; above 0, or the next switch, starts it again. */
  scale(deployment: Deployment, replicas: number): Promise<Deployment>;
  removeDeployment(deployment: Deployment): Promise<void>;
  setEnv(
    deployment: Deployment,
    vars: Omit<EnvVar, 'created_at' | 'updated_at' | 'deployment_id'>[],
  ): Promise<void>;
  unsetEnv(deployment: Deployment, environment: string, name: string): Promise<boolean>;

  /** The sandbox's folder on this machine; made on first use. */
  workspaceDir(sandbox: Sandbox): Promise<string>;
  /** Both end what runs in it before they answer; destroyed, its folder is gone as well. */
  pauseSandbox(sandbox: Sandbox): Promise<Sandbox>;
  destroySandbox(sandbox: Sandbox): Promise<void>;
  /** Freezes a workspace, without its secrets, into a stored object. */
  snapshotSandbox(sandbox: Sandbox): Promise<StoredWorkspace>;
  /** Fills the folder of a sandbox whose row is yet to be written, from a snapshot or from another's workspace as it is. */
  fillSandbox(sandbox_id: string, from: WorkspaceSource): Promise<void>;
  /** Removes what `fillSandbox` made when no row came of it. */
  discardSandbox(sandbox_id: string): Promise<void>;
  exec(sandbox: Sandbox, request: ExecRequest): Promise<Machine>;

  buildLogPath(build_id: string): string;
  instanceLogPath(instance_id: string): string;
  /** What commands in the sandbox printed. */
  sandboxLogPath(sandbox_id: string): string;
  publicUrl(slug: string, host_label: string): string;
  gc(options: { dry_run: boolean }): Promise<GcReport>;
  doctor(): Promise<DoctorReport>;
}
