import type { Ownership } from './attribution.ts';

/** The stable production object: a slug, a URL that never changes, and a pointer to the active version. */
export type DeploymentState = 'pending' | 'building' | 'running' | 'stopped' | 'failed';

/** Instances of one deployment, at most. */
export const MAX_REPLICAS = 32;

/** Settings a publish falls back to when it does not name its own. Null: the engine's default. */
export interface DeploymentSettings {
  install_command: string | null;
  build_command: string | null;
  run_command: string | null;
  output_path: string | null;
  port: number | null;
  health_check_path: string | null;
  grace_ms: number | null;
  startup_timeout_ms: number | null;
  memory_bytes: number | null;
}

export interface Deployment extends Ownership {
  id: string;
  name: string;
  slug: string;
  state: DeploymentState;
  source_type: 'repo' | 'sandbox' | 'upload' | null;
  repo_url: string | null;
  branch: string | null;
  auto_deploy: boolean;
  settings: DeploymentSettings;
  metadata: Record<string, unknown>;
  desired_replicas: number;
  size: string;
  active_version_id: string | null;
  /** Sequence number of the switch in force (I4): a switch with a lower one never happens. */
  active_seq: number;
  /** The last sequence number handed to an accepted publish, promote or rollback. */
  last_seq: number;
  /** Route generation of the last switch; the edge acknowledges generations. */
  route_generation: number;
  created_at: Date;
  updated_at: Date;
  deleted_at: Date | null;
}
