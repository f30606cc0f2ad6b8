import type { Command } from 'commander';
import { type Bind, examples } from '../cli.ts';
import { EXIT } from '../exit.ts';
import {
  addEngineOptions,
  configOf,
  describeEngine,
  type EngineOptions,
  serve,
  startEngine,
} from './engine-options.ts';

export function define(command: Command, bind: Bind): void {
  command.description(
    'Start the engine: the API (port 7070) and the edge that serves what is published (port 7080), both on loopback unless told otherwise. Runs until Ctrl-C or SIGTERM; what is live comes back with the next start.',
  );
  addEngineOptions(command);
  examples(command, [
    ['kiln up', 'on the usual ports, data in ~/.kiln'],
    ['kiln up --data ./state --api-port 0 --edge-port 0', 'on any free ports'],
    ['kiln up --database postgres://localhost/kiln', 'with a database server'],
    ['KILN_GRACE=5 kiln up', 'options can come from the environment'],
  ]);
  command.action(
    bind(async (cli, options: EngineOptions) => {
      const config = configOf(cli, options);
      const server = await startEngine(cli, config, { api: false, edge: false });
      describeEngine(cli, config, server);
      cli.out.line('');
      cli.out.line('Ready. In another terminal: kiln publish ./my-app');
      await serve(cli, server);
      return EXIT.ok;
    }),
  );
}
