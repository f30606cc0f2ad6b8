import path from 'node:path';
import type { Command } from 'commander';
import { folderHolder } from '../../engine/folders.ts';
import { type Bind, type Cli, examples } from '../cli.ts';
import { Client } from '../client.ts';
import { EXIT, type ExitCode } from '../exit.ts';
import { readFolder } from '../folder.ts';
import { addEnvOption, addPlanOptions, overridesOf, type PlanOptions } from '../plan-options.ts';
import { type PublishRequest, publishFolder } from '../publish/publish-folder.ts';
import {
  addEngineOptions,
  configOf,
  describeEngine,
  type EngineOptions,
  isChosen,
  serve,
  startEngine,
} from '../up/engine-options.ts';
import { withStandardInput } from '../variables.ts';

interface StartOptions extends PlanOptions {
  name?: string;
  env?: [string, string][];
  reuse: boolean;
  grace?: string;
  startupLimit?: string;
}

const EXAMPLE = path.join(import.meta.dirname, '..', '..', '..', 'examples', 'hello');
/** The example is known to be well; nobody should wait for it. */
const EXAMPLE_GRACE_MS = 2000;

export function define(command: Command, bind: Bind): void {
  command
    .description(
      'Start the engine, publish a folder (without one: the example app) and keep serving until Ctrl-C. When an engine holds the data folder already, publish to that one and end.',
    )
    .argument('[path]', 'folder of the app (default: the example app)')
    .option('--name <name>', 'deployment to publish to')
    .option('--no-reuse', 'build even when an equal release is stored');
  addEnvOption(command);
  addPlanOptions(command);
  addEngineOptions(command);
  examples(command, [
    ['npm start', 'the example app, live in seconds'],
    ['npm start -- ./my-app', 'your app'],
    ['kiln start ./my-app --grace 5', 'shorter health check'],
    ["kiln start . --run-command 'node server.js' --port 3000", 'with a command of yours'],
  ]);
  command.action(
    bind(async (cli, given: string | undefined, options: StartOptions) => {
      const folder = readFolder(cli.cwd, given ?? EXAMPLE);
      const engine_options = options as unknown as EngineOptions;
      const config = configOf(cli, engine_options);
      const env = Object.fromEntries(await withStandardInput(cli, options.env ?? []));
      const request = { ...requestOf(options, given === undefined, config.health), env };
      const holder = folderHolder(config.data_dir);
      if (holder) {
        cli.out.note(
          `An engine runs already on ${config.data_dir} (process ${holder.pid}); publishing to it.`,
        );
        return publishFolder(cli, await cli.connect(), folder, request);
      }
      const server = await startEngine(cli, config, {
        api: !isChosen(cli, engine_options, 'api-port'),
        edge: !isChosen(cli, engine_options, 'edge-port'),
      });
      describeEngine(cli, config, server);
      const { api_url, key } = server;
      const client = new Client({ api_url, key, local: true, data_dir: config.data_dir }, cli.interrupted);
      try {
        return await publishAndServe(cli, client, folder, request, () => serve(cli, server));
      } finally {
        await server.close();
      }
    }),
  );
}

/** A failed first publish ends the engine again; one that leaves an older version live does not take that down. */
async function publishAndServe(
  cli: Cli,
  client: Client,
  folder: string,
  request: PublishRequest,
  serveOn: () => Promise<void>,
): Promise<ExitCode> {
  const code = await publishFolder(cli, client, folder, request);
  if (code !== EXIT.ok && !(await hasLive(client))) return code;
  cli.out.line('');
  cli.out.line('Serving. Ctrl-C stops; `kiln publish` publishes again.');
  await serveOn();
  return EXIT.ok;
}

async function hasLive(client: Client): Promise<boolean> {
  for await (const { active_version_id } of client.list('/deployments'))
    if (active_version_id !== null) return true;
  return false;
}

function requestOf(
  options: StartOptions,
  is_example: boolean,
  health: { grace_ms: number; startup_timeout_ms: number },
): Omit<PublishRequest, 'env'> {
  const example_ms = is_example ? EXAMPLE_GRACE_MS : null;
  return {
    name: options.name ?? null,
    overrides: overridesOf(options),
    // Said here, so that an engine that runs already with other defaults does the same.
    grace_ms: options.grace === undefined ? example_ms : health.grace_ms,
    startup_timeout_ms: options.startupLimit === undefined ? null : health.startup_timeout_ms,
    replicas: null,
    promote: true,
    reuse: options.reuse,
    include_git: false,
  };
}
