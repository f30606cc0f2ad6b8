import type { Command } from 'commander';
import { type Bind, examples } from '../cli.ts';
import { EXIT } from '../exit.ts';
import { formatAge } from '../output.ts';

export function define(command: Command, bind: Bind): void {
  examples(command, [
    ['kiln ls', 'all deployments'],
    ["kiln ls --json | jq '.data[].public_url'", 'their URLs'],
  ]);
  command.action(
    bind(async (cli) => {
      const client = await cli.connect();
      const data = await Array.fromAsync(client.list('/deployments'));
      cli.out.result({ data }, () => {
        if (data.length === 0) cli.out.line('Nothing is published yet: kiln publish ./my-app');
        cli.out.table(
          ['NAME', 'STATE', 'URL', 'CHANGED'],
          data.map((one) => [
            one.slug,
            one.active_version_id === null && one.state !== 'failed' ? `${one.state}, not live` : one.state,
            one.public_url,
            formatAge(one.updated_at, Date.now()),
          ]),
        );
      });
      return EXIT.ok;
    }),
  );
}
