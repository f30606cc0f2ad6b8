import type { Command } from 'commander';
import { type Bind, type Cli, examples } from '../cli.ts';
import { badInput, EXIT, interrupted } from '../exit.ts';
import { findDeployment } from '../find.ts';

export function define(command: Command, bind: Bind): void {
  command.argument('<name>', 'deployment').option('-y, --yes', 'do not ask');
  examples(command, [
    ['kiln rm shop', 'asks first'],
    ['kiln rm shop --yes', 'in a script'],
  ]);
  command.action(
    bind(async (cli, name: string, options: { yes?: boolean }) => {
      const client = await cli.connect();
      const deployment = await findDeployment(client, name);
      if (!options.yes)
        await confirm(cli, `Remove ${deployment.slug} (${deployment.public_url}) and its history?`);
      await client.delete('/deployments/{id}', { params: { id: deployment.id } });
      cli.out.result({ id: deployment.id, slug: deployment.slug, deleted: true }, () =>
        cli.out.line(`${deployment.slug} is removed. Its folder is untouched.`),
      );
      return EXIT.ok;
    }),
  );
}

async function confirm(cli: Cli, question: string): Promise<void> {
  if (cli.out.json || cli.stdin.isTTY !== true || cli.out.stdout.isTTY !== true)
    throw badInput('Nobody is here to be asked.', 'Say --yes if it shall be removed.');
  const { confirm: ask, isCancel } = await import('@clack/prompts');
  const answer = await ask({ message: question, initialValue: false, signal: cli.interrupted });
  if (isCancel(answer)) throw interrupted();
  if (!answer) throw badInput('Nothing was removed.');
}
