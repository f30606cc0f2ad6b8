/** What a person names, found: deployments by slug, name or id, versions by id or number. */
import type { DeploymentView } from '../api/contract/deployment.ts';
import type { VersionView } from '../api/contract/version.ts';
import type { Client } from './client.ts';
import { CliError, EXIT } from './exit.ts';

const MAX_NAMED = 8;

export async function findDeployment(client: Client, name: string): Promise<DeploymentView> {
  const found = /^dep_/.test(name)
    ? await client.find('/deployments/{id}', { params: { id: name } })
    : await client.find('/deployments/by-name/{name}', { params: { name } });
  if (found) return found.data;
  const slugs: string[] = [];
  for await (const { slug } of client.list('/deployments', { query: { limit: MAX_NAMED } })) {
    slugs.push(slug);
    if (slugs.length === MAX_NAMED) break;
  }
  throw notFound(
    `There is no deployment called ${name}.`,
    slugs.length === 0
      ? 'There is none at all yet: `kiln publish ./my-app`.'
      : `There is: ${slugs.join(', ')}.`,
  );
}

/** By id (`ver_…`) or number. */
export async function findVersion(
  client: Client,
  deployment: DeploymentView,
  named: string,
): Promise<VersionView> {
  const { id } = deployment;
  const number = /^v?(\d{1,9})$/.exec(named)?.[1];
  if (number === undefined) {
    const found = await client.find('/deployments/{id}/versions/{version_id}', {
      params: { id, version_id: named },
    });
    if (found) return found.data;
  } else
    for await (const version of client.list('/deployments/{id}/versions', { params: { id } })) {
      if (version.version_number === Number(number)) return version;
      // Newest first: what comes now is older still.
      if (version.version_number < Number(number)) break;
    }
  throw notFound(
    `${deployment.slug} has no version ${named}.`,
    `\`kiln versions ${deployment.slug}\` shows those it has.`,
  );
}

/** A version by its id alone. */
export async function findVersionAnywhere(client: Client, id: string): Promise<VersionView> {
  const found = await client.find('/versions/{version_id}', { params: { version_id: id } });
  if (found) return found.data;
  throw notFound(`There is no version ${id}.`, '`kiln versions NAME` shows the versions of a deployment.');
}

export function notFound(message: string, next_step: string): CliError {
  return new CliError(EXIT.input, 'NOT_FOUND', message, { next_step });
}
