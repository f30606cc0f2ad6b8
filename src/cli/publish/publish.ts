import type { Command } from 'commander';
import { MAX_REPLICAS } from '../../domain/deployment.ts';
import { type Bind, examples } from '../cli.ts';
import { readFolder } from '../folder.ts';
import {
  addEnvOption,
  addPlanOptions,
  overridesOf,
  type PlanOptions,
  seconds,
  wholeNumber,
} from '../plan-options.ts';
import { withStandardInput } from '../variables.ts';
import { publishFolder } from './publish-folder.ts';

export interface PublishOptions extends PlanOptions {
  name?: string;
  env?: [string, string][];
  grace?: number;
  startupLimit?: number;
  replicas?: number;
  promote: boolean;
  reuse: boolean;
  includeGit?: boolean;
}

export function define(command: Command, bind: Bind): void {
  command
    .argument('[path]', 'folder of the app', '.')
    .option(
      '--name <name>',
      'deployment to publish to; made when there is none (default: that of the folder)',
    )
    .option('--grace <seconds>', 'unbroken health before the switch (default 30)', seconds(0, 3600))
    .option('--startup-limit <seconds>', 'until the first healthy answer (default 60)', seconds(1, 3600))
    .option('--replicas <number>', 'instances of the server', wholeNumber(1, MAX_REPLICAS))
    .option('--no-promote', 'prove it, but leave production as it is')
    .option('--no-reuse', 'build even when an equal release is stored')
    .option('--include-git', 'the .git folder too');
  addEnvOption(command);
  addPlanOptions(command);
  examples(command, [
    ['kiln publish ./my-app', 'publish a folder'],
    ['kiln publish . --name shop --grace 5', 'to a deployment of this name'],
    ["kiln publish . --build-command 'make' --run-command './server' --port 3000", 'with your own commands'],
    ['kiln publish . --no-promote', 'promote it later: kiln promote my-app 4'],
    ['kiln publish . --json', 'one JSON line per event'],
  ]);
  command.action(
    bind(async (cli, given: string, options: PublishOptions) => {
      const folder = readFolder(cli.cwd, given);
      const env = Object.fromEntries(await withStandardInput(cli, options.env ?? []));
      return publishFolder(cli, await cli.connect(), folder, {
        name: options.name ?? null,
        overrides: overridesOf(options),
        env,
        grace_ms: milliseconds(options.grace),
        startup_timeout_ms: milliseconds(options.startupLimit),
        replicas: options.replicas ?? null,
        promote: options.promote,
        reuse: options.reuse,
        include_git: options.includeGit ?? false,
      });
    }),
  );
}

function milliseconds(value: number | undefined): number | null {
  return value === undefined ? null : Math.round(value * 1000);
}
