/** What a person names, found: deployments by slug, name or id, versions by id or number. */
import type { DeploymentView } from '../api/contract/deployment.ts';
import type { VersionView } from '../api/contract/version.ts';
import { type Client, segment } from './client.ts';
import { CliError, EXIT } from './exit.ts';

const MAX_NAMED = 8;

export async function findDeployment(client: Client, name: string): Promise<DeploymentView> {
  const path = /^dep_/.test(name) ? `/deployments/${segment(name)}` : `/deployments/by-name/${segment(name)}`;
  const found = await client.find<{ data: DeploymentView }>(path);
  if (found) return found.data;
  const slugs: string[] = [];
  for await (const { slug } of client.list<DeploymentView>('/deployments', { limit: MAX_NAMED })) {
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
  const path = `/deployments/${deployment.id}/versions`;
  const number = /^v?(\d{1,9})$/.exec(named)?.[1];
  if (number === undefined) {
    const found = await client.find<{ data: VersionView }>(`${path}/${segment(named)}`);
    if (found) return found.data;
  } else
    for await (const version of client.list<VersionView>(path)) {
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
  const found = await client.find<{ data: VersionView }>(`/versions/${segment(id)}`);
  if (found) return found.data;
  throw notFound(`There is no version ${id}.`, '`kiln versions NAME` shows the versions of a deployment.');
}

export function notFound(message: string, next_step: string): CliError {
  return new CliError(EXIT.input, 'NOT_FOUND', message, { next_step });
}
