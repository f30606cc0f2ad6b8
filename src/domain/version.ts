import type { Ownership } from './attribution.ts';
import type { Failure, Stage } from './failure.ts';
import type { Plan, PlanOverrides, ReleaseKind } from './plan.ts';
import type { RunSettings } from './settings.ts';

/**
 * A deployment version: an immutable row of history. Its life is `created → building → ready | failed`, and
 * `ready ⇄ archived` as other versions replace it or it is promoted again. A `ready` version never fails.
 * Digests, plan and run settings are written once (I1); the store refuses a second, different write.
 */
export type VersionState = 'created' | 'building' | 'ready' | 'failed' | 'archived';

const NEXT: Record<VersionState, readonly VersionState[]> = {
  created: ['building', 'failed'],
  building: ['ready', 'failed'],
  ready: ['archived'],
  archived: ['ready'],
  failed: [],
};

/** The one transition function; what it does not list is an error. */
export function versionMayBecome(from: VersionState, to: VersionState): boolean {
  return NEXT[from].includes(to);
}

export function isPromotable(state: VersionState): boolean {
  return state === 'ready' || state === 'archived';
}

/** What a publish asked for, frozen when it was accepted. */
export interface PublishRequest {
  overrides: PlanOverrides;
  environment: string;
  grace_ms: number | null;
  startup_timeout_ms: number | null;
  promote: boolean;
  reuse: boolean;
}

/** How long each finished stage took, milliseconds. */
export type StageTimes = Partial<Record<Stage, number>>;

export interface Version extends Ownership {
  id: string;
  deployment_id: string;
  version_number: number;
  seq: number;
  kind: ReleaseKind | null;
  state: VersionState;
  source_sandbox_id: string | null;
  source_sha256: string;
  source_size_bytes: number;
  source_files: number;
  request: PublishRequest;
  plan: Plan | null;
  run_settings: RunSettings | null;
  release_id: string | null;
  build_id: string;
  /** The version whose snapshot this one rebuilt (`kiln retry`). */
  retry_of: string | null;
  reused_release: boolean;
  superseded: boolean;
  failure: Failure | null;
  stage: Stage | null;
  stage_times: StageTimes;
  metadata: Record<string, unknown>;
  health_passed_at: Date | null;
  promoted_at: Date | null;
  archived_at: Date | null;
  created_at: Date;
  updated_at: Date;
}
