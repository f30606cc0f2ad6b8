import { type Command, Option } from 'commander';
import type { DeploymentView } from '../../api/contract/deployment.ts';
import { SIZE_NAMES, SIZES } from '../../api/contract/size.ts';
import { MAX_REPLICAS } from '../../domain/deployment.ts';
import { type Bind, examples } from '../cli.ts';
import type { Client } from '../client.ts';
import { badInput, EXIT } from '../exit.ts';
import { findDeployment } from '../find.ts';
import { plural } from '../output.ts';
import { wholeNumber } from '../plan-options.ts';

const MEMORY = SIZE_NAMES.map((name) => `${name} ${SIZES[name].memory_mb / 1024} GiB`).join(', ');

export function define(command: Command, bind: Bind): void {
  command
    .argument('<name>', 'deployment')
    .argument('[replicas]', 'instances', wholeNumber(0, MAX_REPLICAS))
    .addOption(
      new Option('--size <size>', `memory an instance may use, from the next publish on (${MEMORY})`).choices(
        SIZE_NAMES,
      ),
    );
  examples(command, [
    ['kiln scale shop 3', 'three instances from now on'],
    ['kiln scale shop --size medium', 'more memory for the next version'],
  ]);
  command.action(
    bind(async (cli, name: string, replicas: number | undefined, { size }: { size?: string }) => {
      if (replicas === undefined && size === undefined)
        throw badInput('Say how many instances, or give a --size.');
      const client = await cli.connect();
      const deployment = await findDeployment(client, name);
      const params = { id: deployment.id };
      let scaled: DeploymentView | null = null;
      if (size !== undefined)
        scaled = (await client.post('/deployments/{id}/resize', { params, body: { size } })).data;
      if (replicas !== undefined)
        scaled = (await client.post('/deployments/{id}/scale', { params, body: { replicas } })).data;
      const is_site = (await activeKind(client, deployment)) === 'static';
      cli.out.result(scaled!, () => {
        if (replicas !== undefined)
          cli.out.line(
            is_site
              ? `${scaled!.slug} is a static site: it is served by the edge and has no instances. The number counts once a server is published to it.`
              : `${scaled!.slug} runs ${plural(scaled!.desired_replicas, 'instance')}.`,
          );
        if (size !== undefined)
          cli.out.line(`${scaled!.slug} has size ${size} from the next publish (or \`kiln retry\`) on.`);
      });
      return EXIT.ok;
    }),
  );
}

/** What is live; null when nothing is. */
async function activeKind(client: Client, deployment: DeploymentView): Promise<string | null> {
  const { id, active_version_id: version_id } = deployment;
  if (version_id === null) return null;
  return (await client.get('/deployments/{id}/versions/{version_id}', { params: { id, version_id } })).data
    .kind;
}
