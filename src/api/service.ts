import type { Deployment } from '../domain/deployment.ts';
import type { ReleaseKind } from '../domain/plan.ts';
import type { ServiceView } from './contract/release.ts';

/** A deployment has exactly one service; its id follows from the deployment's. */
export function serviceId(deployment_id: string): string {
  return `svc_${deployment_id.replace(/^dep_/, '')}`;
}

const STATES: Record<Deployment['state'], string> = {
  pending: 'pending',
  building: 'provisioning',
  running: 'healthy',
  stopped: 'stopped',
  failed: 'error',
};

export function presentService(deployment: Deployment, kind: ReleaseKind | null): ServiceView {
  return {
    id: serviceId(deployment.id),
    deployment_id: deployment.id,
    tenant_id: deployment.tenant_id,
    environment_id: null,
    name: 'web',
    type: kind === 'static' ? 'static_web' : 'web',
    state: STATES[deployment.state],
    desired_replicas: deployment.desired_replicas,
    metadata: {},
  };
}
