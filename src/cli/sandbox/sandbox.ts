import type { Command } from 'commander';
import type { SandboxView } from '../../api/contract/sandbox.ts';
import { quote } from '../../build/quote.ts';
import { type Bind, type Cli, examples } from '../cli.ts';
import type { Client } from '../client.ts';
import { EXIT, type ExitCode } from '../exit.ts';
import { notFound } from '../find.ts';
import { formatAge } from '../output.ts';
import { seconds } from '../plan-options.ts';

export function define(command: Command, bind: Bind): void {
  command.description('Sandboxes: the workspaces that are published. `kiln publish` keeps one per folder.');
  examples(command, [
    ['kiln sandbox ls', 'all sandboxes'],
    ["kiln sandbox exec my-app-1a2b3c4d5e 'ls -l'", 'run a command in one'],
  ]);
  defineLs(command, bind);
  defineExec(command, bind);
  defineRm(command, bind);
}

function defineLs(sandbox: Command, bind: Bind): void {
  const command = sandbox.command('ls').description('All sandboxes, newest first.');
  examples(command, [['kiln sandbox ls', 'names, states and the folders they belong to']]);
  command.action(
    bind(async (cli) => {
      const client = await cli.connect();
      const data = await Array.fromAsync(client.list('/sandboxes'));
      cli.out.result({ data }, () => {
        if (data.length === 0) cli.out.line('There is no sandbox.');
        cli.out.table(
          ['NAME', 'ID', 'STATE', 'CHANGED', 'FOLDER'],
          data.map((one) => [
            one.name,
            one.id,
            one.state,
            formatAge(one.updated_at, Date.now()),
            String(one.metadata.folder ?? ''),
          ]),
        );
      });
      return EXIT.ok;
    }),
  );
}

function defineExec(sandbox: Command, bind: Bind): void {
  const command = sandbox
    .command('exec')
    .description('Run a shell command in a sandbox, isolated as a build is.');
  command
    .argument('<sandbox>', 'name or sbx_…')
    .argument('<command...>', 'shell command in one word; or, after --, a program and its arguments')
    .option('--timeout <seconds>', 'ends it after so long', seconds(1, 3600), 120);
  examples(command, [
    ["kiln sandbox exec my-app-1a2b3c4d5e 'npm test'", 'ends with exit code 3 when the command fails'],
    [
      'kiln sandbox exec my-app-1a2b3c4d5e -- node -e "console.log(1)"',
      'as words: nothing in them is expanded',
    ],
  ]);
  command.action(bind(exec));
}

async function exec(cli: Cli, name: string, words: string[], o: { timeout: number }): Promise<ExitCode> {
  const client = await cli.connect();
  const sandbox = await findSandbox(client, name);
  const command = words.length === 1 ? words[0]! : words.map(quote).join(' ');
  const result = await client.post('/sandboxes/{id}/exec', {
    params: { id: sandbox.id },
    body: { command, timeout: o.timeout },
    timeout_ms: (o.timeout + 30) * 1000,
    // A command may have run although its answer was lost.
    repeatable: false,
  });
  cli.out.result(result, () => {
    cli.out.stdout.write(result.stdout);
    cli.out.stderr.write(result.stderr);
    if (result.exit_code !== 0) cli.out.note(`The command ended with exit code ${result.exit_code}.`);
  });
  return result.exit_code === 0 ? EXIT.ok : EXIT.build;
}

function defineRm(sandbox: Command, bind: Bind): void {
  const command = sandbox
    .command('rm')
    .description('Destroy a sandbox. Versions published from it keep their own snapshots.');
  command.argument('<sandbox>', 'name or sbx_…');
  examples(command, [
    ['kiln sandbox rm my-app-1a2b3c4d5e', 'the next publish of the folder makes a new one'],
  ]);
  command.action(
    bind(async (cli, name: string) => {
      const client = await cli.connect();
      const { id } = await findSandbox(client, name);
      await client.delete('/sandboxes/{id}', { params: { id } });
      cli.out.result({ id, deleted: true }, () => cli.out.line(`${name} is destroyed.`));
      return EXIT.ok;
    }),
  );
}

async function findSandbox(client: Client, name: string): Promise<SandboxView> {
  const found = name.startsWith('sbx_')
    ? await client.find('/sandboxes/{id}', { params: { id: name } })
    : await client.find('/sandboxes/by-name/{name}', { params: { name } });
  if (found) return found;
  throw notFound(`There is no sandbox called ${name}.`, '`kiln sandbox ls` shows those there are.');
}
