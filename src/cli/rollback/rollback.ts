import type { Command } from 'commander';
import { type Bind, examples } from '../cli.ts';
import { findDeployment, findVersion } from '../find.ts';
import { switchVersion } from '../switch-version.ts';

export function define(command: Command, bind: Bind): void {
  command
    .description(
      'Back to an earlier version, without a build: the one named, else the one that was live before. At once while its instances are warm; else they are started and proved first.',
    )
    .argument('<name>', 'deployment')
    .argument('[version]', 'ver_… or number');
  examples(command, [
    ['kiln rollback shop', 'to the version that was live before'],
    ['kiln rollback shop 3', 'to version 3'],
  ]);
  command.action(
    bind(async (cli, name: string, named: string | undefined) => {
      const client = await cli.connect();
      const deployment = await findDeployment(client, name);
      const rollback_to = named === undefined ? null : (await findVersion(client, deployment, named)).id;
      return switchVersion(cli, client, deployment, { rollback_to });
    }),
  );
}
