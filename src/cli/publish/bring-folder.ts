import type { DeploymentView } from '../../api/contract/deployment.ts';
import type { SandboxView } from '../../api/contract/sandbox.ts';
import { findDeployment, makeDeployment, rememberDeployment } from './choose-deployment.ts';
import { ensureSandbox, type Sync, syncFolder } from './sync-folder.ts';

export interface Brought {
  sandbox: SandboxView;
  deployment: DeploymentView;
  secrets_left_out: string[];
}

/**
 * Brings a folder's sandbox up to date and finds the deployment it is published to; null as `name`: none was given. A new
 * one is made last, so that a folder that is refused leaves none behind.
 */
export async function bringFolder(of: Omit<Sync, 'sandbox'> & { name: string | null }): Promise<Brought> {
  const { client, folder, name } = of;
  const sandbox = await ensureSandbox(client, folder);
  const found = await findDeployment(client, { name, folder, sandbox });
  const { secrets_left_out } = await syncFolder({ ...of, sandbox });
  const deployment = found ?? (await makeDeployment(client, { name, folder, sandbox }));
  await rememberDeployment(client, sandbox, deployment);
  return { sandbox, deployment, secrets_left_out };
}
