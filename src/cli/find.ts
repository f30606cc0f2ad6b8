/** What a person names, found: deployments by slug, name or id, versions by id or number. */
import type { DeploymentView } from '../api/contract/deployment.ts';
import type { VersionView } from '../api/contract/version.ts';
import type { Client } from './client.ts';
import { CliError, EXIT } from './exit.ts';

const MAX_NAMED = 8;
/** Looked through for one that was meant. */
const MAX_COMPARED = 1000;

export async function findDeployment(client: Client, name: string): Promise<DeploymentView> {
  const found = /^dep_/.test(name)
    ? await client.find('/deployments/{id}', { params: { id: name } })
    : await client.find('/deployments/by-name/{name}', { params: { name } });
  if (found) return found.data;
  const slugs: string[] = [];
  for await (const { slug } of client.list('/deployments', { query: { limit: 200 } })) {
    slugs.push(slug);
    if (slugs.length === MAX_COMPARED) break;
  }
  throw notFound(`There is no deployment called ${name}.`, meant(name, slugs));
}

/** One letter wrong, missing, too many or two exchanged, or the beginning of a name; else what there is. */
function meant(name: string, slugs: string[]): string {
  if (slugs.length === 0) return 'There is none at all yet: `kiln publish ./my-app`.';
  const near = slugs.filter((slug) => isNear(slug, name)).slice(0, MAX_NAMED);
  if (near.length > 0) return `Did you mean ${near.join(', ')}?`;
  const more = slugs.length > MAX_NAMED ? ', … (`kiln ls` shows all)' : '';
  return `There is: ${slugs.slice(0, MAX_NAMED).join(', ')}${more}.`;
}

function isNear(one: string, other: string): boolean {
  if (one.startsWith(other) && other.length > 2) return true;
  let from = 0;
  while (from < one.length && one[from] === other[from]) from++;
  const [a, b] = [one.slice(from), other.slice(from)];
  const exchanged = a[0] === b[1] && a[1] === b[0] && a.slice(2) === b.slice(2);
  return exchanged || a.slice(1) === b.slice(1) || a.slice(1) === b || a === b.slice(1);
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
