/** Which deployment a folder is published to. */
import path from 'node:path';
import type { DeploymentView } from '../../api/contract/deployment.ts';
import type { SandboxView } from '../../api/contract/sandbox.ts';
import { slugify } from '../../domain/slug.ts';
import type { Client } from '../client.ts';
import { badInput, CliError } from '../exit.ts';

/**
 * The one named; else the one this folder went to last time; else the one called like the folder, made when there is
 * none. A name that was not typed never takes over the deployment of another folder: `site` in two projects is two
 * sites.
 */
export async function chooseDeployment(
  client: Client,
  of: { name: string | null; folder: string; sandbox: SandboxView },
): Promise<DeploymentView> {
  const deployment =
    of.name === null
      ? await ofFolder(client, of.folder, of.sandbox)
      : await named(client, of.name, of.sandbox);
  if (of.sandbox.metadata.deployment_id !== deployment.id)
    await client.patch('/sandboxes/{id}', {
      params: { id: of.sandbox.id },
      body: { metadata: { ...of.sandbox.metadata, deployment_id: deployment.id } },
    });
  return deployment;
}

async function ofFolder(client: Client, folder: string, sandbox: SandboxView): Promise<DeploymentView> {
  const remembered = sandbox.metadata.deployment_id;
  if (typeof remembered === 'string') {
    const found = await client.find('/deployments/{id}', { params: { id: remembered } });
    if (found) return found.data;
  }
  const name = path.basename(folder) || 'app';
  const found = await byName(client, slugify(name, 'app'));
  if (!found) return create(client, name, sandbox);
  const other = found.metadata.sandbox;
  if (typeof other === 'string' && other !== sandbox.name)
    throw badInput(
      `A deployment called ${found.slug} exists already, and another folder is published to it.`,
      `To publish this folder to it, say so: --name ${found.slug}. Otherwise give another name with --name.`,
    );
  return found;
}

async function named(client: Client, name: string, sandbox: SandboxView): Promise<DeploymentView> {
  return (await byName(client, name)) ?? (await create(client, name, sandbox));
}

async function byName(client: Client, name: string): Promise<DeploymentView | null> {
  const found = await client.find('/deployments/by-name/{name}', { params: { name } });
  return found?.data ?? null;
}

async function create(client: Client, name: string, sandbox: SandboxView): Promise<DeploymentView> {
  try {
    const body = { name, source_type: 'sandbox' as const, metadata: { sandbox: sandbox.name } };
    return (await client.post('/deployments', { body })).data;
  } catch (error) {
    // Somebody made it just now.
    const made = error instanceof CliError && error.code === 'CONFLICT' ? await byName(client, name) : null;
    if (made) return made;
    throw error;
  }
}
