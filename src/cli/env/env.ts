import type { Command } from 'commander';
import { type Bind, type Cli, examples } from '../cli.ts';
import { badInput, EXIT } from '../exit.ts';
import { findDeployment } from '../find.ts';
import { plural } from '../output.ts';
import { splitPair } from '../plan-options.ts';
import { withStandardInput } from '../variables.ts';

interface EnvOptions {
  environment?: string;
  secret?: boolean;
  build?: boolean;
}

const NEXT = 'The next publish sees it; to apply it now: kiln publish, or kiln retry of the live version.';

const PORT_IS_OURS =
  'PORT has no effect: Kiln chooses the port of each instance and says it in PORT. For an app that can only use one port there is `kiln publish --port`.';

export function define(command: Command, bind: Bind): void {
  command.description(
    'Environment variables of a deployment. Values are stored encrypted and never shown again; a publish takes them as they are then.',
  );
  examples(command, [
    ['kiln env ls shop', 'names, with previews'],
    ['kiln env set shop LOG_LEVEL=debug', 'set, keep the others'],
    ['kiln env unset shop LOG_LEVEL', 'remove'],
  ]);
  defineLs(command, bind);
  defineSet(command, bind);
  defineUnset(command, bind);
}

function defineLs(env: Command, bind: Bind): void {
  const command = env.command('ls').description('Names with previews; secrets are masked whole.');
  command.argument('<name>', 'deployment').option('--environment <name>', 'default: production');
  examples(command, [['kiln env ls shop', 'what the next publish gets']]);
  command.action(
    bind(async (cli, name: string, { environment }: EnvOptions) => {
      const client = await cli.connect();
      const deployment = await findDeployment(client, name);
      const answer = await client.get('/deployments/{id}/env', {
        params: { id: deployment.id },
        query: { environment },
      });
      cli.out.result(answer, () => {
        if (answer.data.length === 0) cli.out.line(`${deployment.slug} has no variables.`);
        cli.out.table(
          ['NAME', 'VALUE', 'SECRET', 'AT BUILD'],
          answer.data.map((one) => [
            one.name,
            one.preview,
            one.is_secret ? 'yes' : '',
            one.at_build ? 'yes' : '',
          ]),
        );
      });
      return EXIT.ok;
    }),
  );
}

function defineSet(env: Command, bind: Bind): void {
  const command = env.command('set').description('Set variables, keep the others.');
  command
    .argument('<name>', 'deployment')
    .argument('<pairs...>', 'NAME=VALUE; NAME=- reads the value from standard input')
    .option('--secret', 'masked in lists, redacted in logs (default: the name decides)')
    .option('--no-secret', 'not a secret, whatever its name')
    .option('--build', 'visible to the build too')
    .option('--environment <name>', 'default: production');
  examples(command, [
    ['kiln env set shop LOG_LEVEL=debug PAGES=20', 'two variables'],
    ['kiln env set shop STRIPE_KEY=- < key.txt', 'keeps a secret out of the shell’s history'],
  ]);
  command.action(
    bind(async (cli, name: string, pairs: string[], options: EnvOptions) => {
      const values = await readValues(cli, pairs);
      const client = await cli.connect();
      const deployment = await findDeployment(client, name);
      const vars = values.map(([key, value]) => ({
        name: key,
        value,
        ...(options.secret === undefined ? {} : { is_secret: options.secret }),
        ...(options.build === undefined ? {} : { at_build: options.build }),
      }));
      const { environment } = options;
      const answer = await client.post('/deployments/{id}/env', {
        params: { id: deployment.id },
        body: { vars, ...(environment === undefined ? {} : { environment }) },
      });
      cli.out.result(answer, () => {
        cli.out.line(`${plural(vars.length, 'variable')} of ${deployment.slug} set.`);
        if (vars.some((one) => one.name === 'PORT')) cli.out.warn(PORT_IS_OURS);
        cli.out.note(NEXT);
      });
      return EXIT.ok;
    }),
  );
}

function defineUnset(env: Command, bind: Bind): void {
  const command = env.command('unset').description('Remove variables.');
  command
    .argument('<name>', 'deployment')
    .argument('<names...>', 'variables')
    .option('--environment <name>', 'default: production');
  examples(command, [['kiln env unset shop LOG_LEVEL', 'the next publish no longer has it']]);
  command.action(
    bind(async (cli, name: string, names: string[], { environment }: EnvOptions) => {
      const client = await cli.connect();
      const deployment = await findDeployment(client, name);
      for (const one of names)
        await client.delete('/deployments/{id}/env/{name}', {
          params: { id: deployment.id, name: one },
          query: { environment },
        });
      cli.out.result({ deleted: names }, () => {
        cli.out.line(`${plural(names.length, 'variable')} of ${deployment.slug} removed.`);
        cli.out.note(NEXT);
      });
      return EXIT.ok;
    }),
  );
}

async function readValues(cli: Cli, pairs: string[]): Promise<[string, string][]> {
  const values = pairs.map((pair) => {
    try {
      return splitPair(pair);
    } catch {
      // The pair itself may hold a secret, so it is not repeated.
      throw badInput('A variable is given as NAME=VALUE; a name has letters, digits and _.');
    }
  });
  return withStandardInput(cli, values);
}
