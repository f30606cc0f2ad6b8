/** What happened, in the order it happened, per tenant. Written in the same transaction as the change it tells of. */
export type EventType =
  | 'sandbox.created'
  | 'sandbox.destroyed'
  | 'sandbox.snapshot_created'
  | 'sandbox.snapshot_deleted'
  | 'deployment.created'
  | 'deployment.updated'
  | 'deployment.deleted'
  | 'deployment.build_started'
  | 'deployment.build_succeeded'
  | 'deployment.build_failed'
  | 'deployment.stage'
  | 'deployment.version_ready'
  | 'deployment.published'
  | 'deployment.live'
  | 'deployment.failed'
  | 'deployment.cancelled'
  | 'deployment.superseded'
  | 'deployment.rolled_back'
  | 'deployment.env_changed'
  | 'deployment.scaled'
  | 'deployment.domain_attached'
  | 'webhook.test';

export interface Event {
  id: string;
  tenant_id: string;
  /** Position in the tenant's stream, without gaps among committed events. */
  seq: number;
  type: EventType;
  deployment_id: string | null;
  version_id: string | null;
  operation_id: string | null;
  data: Record<string, unknown>;
  created_at: Date;
}
