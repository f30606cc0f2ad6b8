import { type Command, Option } from 'commander';
import type { DeploymentView } from '../../api/contract/deployment.ts';
import { SIZE_NAMES, SIZES } from '../../api/contract/size.ts';
import { type Bind, examples } from '../cli.ts';
import { badInput, EXIT } from '../exit.ts';
import { findDeployment } from '../find.ts';
import { plural } from '../output.ts';
import { wholeNumber } from '../plan-options.ts';

const MEMORY = SIZE_NAMES.map((name) => `${name} ${SIZES[name].memory_mb / 1024} GiB`).join(', ');

export function define(command: Command, bind: Bind): void {
  command
    .argument('<name>', 'deployment')
    .argument('[replicas]', 'instances', wholeNumber(0, 1000))
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
      cli.out.result(scaled!, () => {
        if (replicas !== undefined)
          cli.out.line(`${scaled!.slug} runs ${plural(scaled!.desired_replicas, 'instance')}.`);
        if (size !== undefined)
          cli.out.line(`${scaled!.slug} has size ${size} from the next publish (or \`kiln retry\`) on.`);
      });
      return EXIT.ok;
    }),
  );
}
