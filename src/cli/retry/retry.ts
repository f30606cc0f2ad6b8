import type { Command } from 'commander';
import { type Bind, examples } from '../cli.ts';
import { findVersionAnywhere } from '../find.ts';
import { followPublished } from '../follow.ts';
import { Progress } from '../progress.ts';

export function define(command: Command, bind: Bind): void {
  command
    .description(
      'Build again from the stored snapshot of a version, as a new version. The workspace is not read.',
    )
    .argument('<version>', 'ver_…')
    .option('--no-promote', 'prove it, but leave production as it is')
    .option('--no-reuse', 'build even when an equal release is stored');
  examples(command, [
    ['kiln retry ver_01k…', 'after a failure that was not the source’s'],
    ['kiln retry ver_01k… --no-reuse', 'build it anew'],
  ]);
  command.action(
    bind(async (cli, id: string, options: { promote: boolean; reuse: boolean }) => {
      const client = await cli.connect();
      const version = await findVersionAnywhere(client, id);
      const progress = new Progress(cli.out);
      try {
        const { data } = await client.post('/deployments/{id}/versions/{version_id}/retry', {
          params: { id: version.deployment_id, version_id: version.id },
          body: options,
        });
        return await followPublished(cli, client, progress, data);
      } finally {
        progress.stop();
      }
    }),
  );
}
