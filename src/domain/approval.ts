/** A promotion that a key may only ask for, until somebody whose key may promote decides. */
export type ApprovalState = 'pending' | 'approved' | 'denied' | 'expired';

export interface Approval {
  id: string;
  tenant_id: string;
  project_id: string;
  deployment_id: string;
  version_id: string;
  kind: 'promote' | 'rollback';
  state: ApprovalState;
  /** Ids of API keys. */
  requested_by: string;
  decided_by: string | null;
  operation_id: string | null;
  expires_at: Date;
  decided_at: Date | null;
  created_at: Date;
}
