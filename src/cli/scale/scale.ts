import type { Command } from 'commander';
import { type Bind, examples } from '../cli.ts';
import { EXIT } from '../exit.ts';
import { findDeployment } from '../find.ts';
import { plural } from '../output.ts';
import { wholeNumber } from '../plan-options.ts';

export function define(command: Command, bind: Bind): void {
  command.argument('<name>', 'deployment').argument('<replicas>', 'instances', wholeNumber(0, 1000));
  examples(command, [['kiln scale shop 3', 'three instances from now on']]);
  command.action(
    bind(async (cli, name: string, replicas: number) => {
      const client = await cli.connect();
      const deployment = await findDeployment(client, name);
      const scaled = await client.post('/deployments/{id}/scale', {
        params: { id: deployment.id },
        body: { replicas },
      });
      cli.out.result(scaled.data, () =>
        cli.out.line(`${scaled.data.slug} runs ${plural(scaled.data.desired_replicas, 'instance')}.`),
      );
      return EXIT.ok;
    }),
  );
}
