/** Which deployment a folder is published to. */
import path from 'node:path';
import type { DeploymentView } from '../../api/contract/deployment.ts';
import type { SandboxView } from '../../api/contract/sandbox.ts';
import { slugify } from '../../domain/slug.ts';
import type { Client } from '../client.ts';
import { badInput, CliError } from '../exit.ts';

/**
 * The one named; else the one this folder went to last time; else the one called like the folder. Null: there is none yet.
 * A name that was not typed never takes over the deployment of another folder: `site` in two projects is two sites.
 */
export async function findDeployment(
  client: Client,
  of: { name: string | null; folder: string; sandbox: SandboxView },
): Promise<DeploymentView | null> {
  return of.name === null ? await ofFolder(client, of.folder, of.sandbox) : await byName(client, of.name);
}

/** Made once the source is there: a publish that was refused before leaves nothing behind. */
export async function makeDeployment(
  client: Client,
  of: { name: string | null; folder: string; sandbox: SandboxView },
): Promise<DeploymentView> {
  return await create(client, of.name ?? nameOf(of.folder), of.sandbox);
}

/** So that the next publish of the folder finds its deployment, whatever that is called by then. */
export async function rememberDeployment(
  client: Client,
  sandbox: SandboxView,
  deployment: DeploymentView,
): Promise<void> {
  if (sandbox.metadata.deployment_id === deployment.id) return;
  await client.patch('/sandboxes/{id}', {
    params: { id: sandbox.id },
    body: { metadata: { ...sandbox.metadata, deployment_id: deployment.id } },
  });
}

async function ofFolder(
  client: Client,
  folder: string,
  sandbox: SandboxView,
): Promise<DeploymentView | null> {
  const remembered = sandbox.metadata.deployment_id;
  if (typeof remembered === 'string') {
    const found = await client.find('/deployments/{id}', { params: { id: remembered } });
    if (found) return found.data;
  }
  const found = await byName(client, slugify(nameOf(folder), 'app'));
  const other = found?.metadata.sandbox;
  if (found && typeof other === 'string' && other !== sandbox.name)
    throw badInput(
      `A deployment called ${found.slug} exists already, and another folder is published to it.`,
      `To publish this folder to it, say so: --name ${found.slug}. Otherwise give another name with --name.`,
    );
  return found;
}

function nameOf(folder: string): string {
  return path.basename(folder) || 'app';
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
