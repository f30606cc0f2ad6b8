import type { Failure, Stage } from './failure.ts';
import type { Verification } from './verification.ts';

/**
 * An operation is one accepted intent (publish, promote, rollback; or verify, which changes nothing) and the only truth about its outcome (I12).
 *
 * queued → running → succeeded | failed | cancelled; queued → cancelled. A worker runs it under a lease: claiming
 * raises `lease_token`, and every write checks the token, so that a worker which lost its lease can write nothing
 * any more (I5). A running operation whose lease has expired may be claimed again.
 */
export type OperationKind = 'publish' | 'promote' | 'rollback' | 'verify';
export type SwitchKind = Extract<OperationKind, 'promote' | 'rollback'>;
export type OperationState = 'queued' | 'running' | 'succeeded' | 'failed' | 'cancelled';

const NEXT: Record<OperationState, readonly OperationState[]> = {
  queued: ['running', 'cancelled', 'failed', 'succeeded'],
  running: ['running', 'succeeded', 'failed', 'cancelled'],
  succeeded: [],
  failed: [],
  cancelled: [],
};

export function isFinished(state: OperationState): boolean {
  return NEXT[state].length === 0;
}

export interface Operation {
  id: string;
  tenant_id: string;
  kind: OperationKind;
  deployment_id: string;
  version_id: string;
  seq: number;
  state: OperationState;
  stage: Stage;
  attempt: number;
  lease_owner: string | null;
  lease_token: number;
  lease_expires_at: Date | null;
  stage_deadline_at: Date | null;
  cancel_requested_at: Date | null;
  /** Did the switch happen? Null until finished; false for `promote: false` and for superseded ones. */
  promoted: boolean | null;
  superseded: boolean;
  failure: Failure | null;
  /** Of a finished verify. */
  result: Verification | null;
  created_at: Date;
  started_at: Date | null;
  finished_at: Date | null;
}
