import type { BuildReport } from './build-report.ts';

/** One build attempt of a version. `reused` builds ran nothing: an equal release was already stored. */
export type BuildState = 'queued' | 'building' | 'succeeded' | 'failed' | 'cancelled';

export interface Build {
  id: string;
  tenant_id: string;
  deployment_id: string;
  version_id: string;
  state: BuildState;
  triggered_by: 'manual' | 'webhook' | 'scheduled';
  error_message: string | null;
  log_bytes: number;
  peak_memory_bytes: number | null;
  /** Null until its commands have run, and for builds that ran none. */
  report: BuildReport | null;
  started_at: Date | null;
  finished_at: Date | null;
  created_at: Date;
}
