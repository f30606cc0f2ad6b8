import type { Failure } from './failure.ts';

/**
 * A running copy of a dynamic release.
 *
 * `role` says why it exists: `gating` (being proved by an operation) → `live` (its version is active) → `warm`
 * (replaced, kept running for an immediate rollback) → `retired` (to be stopped, or stopped). A warm one may become
 * live again. `state` says how it is, in the words of the wire. The edge routes to `live` and `healthy` only.
 */
export type InstanceRole = 'gating' | 'live' | 'warm' | 'retired';
export type InstanceState =
  | 'provisioning'
  | 'starting'
  | 'healthy'
  | 'unhealthy'
  | 'error'
  | 'stopped'
  | 'destroyed';

const NEXT: Record<InstanceRole, readonly InstanceRole[]> = {
  gating: ['live', 'warm', 'retired'],
  live: ['warm', 'retired'],
  warm: ['live', 'retired'],
  retired: [],
};

export function instanceMayBecome(from: InstanceRole, to: InstanceRole): boolean {
  return NEXT[from].includes(to);
}

export interface Instance {
  id: string;
  tenant_id: string;
  deployment_id: string;
  version_id: string;
  release_id: string;
  operation_id: string | null;
  engine_id: string | null;
  replica: number;
  role: InstanceRole;
  state: InstanceState;
  host: string | null;
  port: number | null;
  pid: number | null;
  restart_count: number;
  /** Not started again before this (back-off after a crash). */
  next_start_at: Date | null;
  failure: Failure | null;
  last_health_check_at: Date | null;
  started_at: Date | null;
  stopped_at: Date | null;
  created_at: Date;
  updated_at: Date;
}
