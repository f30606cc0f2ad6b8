import type { Command } from 'commander';
import { serveStdio } from '../../mcp/stdio.ts';
import type { ToolPort } from '../../mcp/tools.ts';
import { type Bind, type Cli, examples } from '../cli.ts';
import type { Client } from '../client.ts';
import { CliError, EXIT } from '../exit.ts';
import { readFolder } from '../folder.ts';
import { Output } from '../output.ts';
import { Progress } from '../progress.ts';
import { bringFolder } from '../publish/bring-folder.ts';

export function define(command: Command, bind: Bind): void {
  examples(command, [
    ['kiln mcp', 'what an agent starts: JSON-RPC on standard input and output'],
    ['KILN_KEY=msk_live_… kiln mcp', 'with a key that may only what the agent should'],
  ]);
  command.action(
    bind(async (cli) => {
      const client = await cli.connect();
      // Standard output belongs to the protocol.
      const nowhere = { write: () => {} };
      const out = new Output({ json: false, stdout: nowhere, stderr: nowhere, no_colour: true });
      const write = (line: string) => cli.out.stdout.write(line);
      await serveStdio(cli.stdin, write, portOf({ ...cli, out }, client), cli.interrupted);
      return EXIT.ok;
    }),
  );
}

function portOf(cli: Cli, client: Client): ToolPort {
  return {
    async ask(method, path, body) {
      try {
        const call = { ...(body === undefined ? {} : { body }), timeout_ms: 150_000 };
        return { status: 200, body: await client.request(method === 'GET' ? 'GET' : 'POST', path, call) };
      } catch (error) {
        if (!(error instanceof CliError)) throw error;
        const { code, message, next_step } = error;
        return { status: 400, body: { code, message, error: { details: { next_step } } } };
      }
    },
    async bringFolder(given, name) {
      const folder = readFolder(cli.cwd, given);
      const request = {
        name,
        overrides: {},
        env: {},
        grace_ms: null,
        startup_timeout_ms: null,
        replicas: null,
        promote: true,
        reuse: true,
        include_git: false,
      };
      const progress = new Progress(cli.out);
      try {
        const of = { cli, client, folder, request, progress, name };
        const { deployment, sandbox } = await bringFolder(of);
        return { deployment_id: deployment.id, sandbox_id: sandbox.id };
      } finally {
        progress.stop();
      }
    },
  };
}
