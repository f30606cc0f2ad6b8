import type { Command } from 'commander';
import { type Bind, examples } from '../cli.ts';
import { findDeployment, findVersion } from '../find.ts';
import { switchVersion } from '../switch-version.ts';

export function define(command: Command, bind: Bind): void {
  command
    .description(
      'Make a ready version active, without a build: after `kiln publish --no-promote`, or to go forward again.',
    )
    .argument('<name>', 'deployment')
    .argument('<version>', 'ver_… or number');
  examples(command, [
    ['kiln promote shop 4', 'make version 4 live'],
    ['kiln promote shop ver_01k…', 'the same by id'],
  ]);
  command.action(
    bind(async (cli, name: string, named: string) => {
      const client = await cli.connect();
      const deployment = await findDeployment(client, name);
      const version = await findVersion(client, deployment, named);
      return switchVersion(cli, client, deployment, { promote: version });
    }),
  );
}
