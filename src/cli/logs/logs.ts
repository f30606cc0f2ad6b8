import type { Command } from 'commander';
import type { DeploymentView } from '../../api/contract/deployment.ts';
import { type Bind, type Cli, examples } from '../cli.ts';
import { type Client, segment } from '../client.ts';
import { CliError, EXIT } from '../exit.ts';
import { findDeployment, findVersion } from '../find.ts';
import { plainText } from '../output.ts';
import { wholeNumber } from '../plan-options.ts';

interface Line {
  ts?: string;
  stream?: string;
  line: string;
  source?: string;
}

export function define(command: Command, bind: Bind): void {
  command
    .argument('<name>', 'deployment')
    .option('--build <id>', 'the build log of a version (ver_… or its number) or build (bld_…)')
    .option('-f, --follow', 'go on as lines come')
    .option('-n, --lines <number>', 'at most so many, the newest', wholeNumber(1, 10_000), 200);
  examples(command, [
    ['kiln logs shop', 'the newest build and what the app wrote'],
    ['kiln logs shop -f', 'follow the publish under way, else the app'],
    ['kiln logs shop --build 4', 'the build log of version 4'],
    ['kiln logs shop --json', 'one JSON line per log line'],
  ]);
  command.action(
    bind(async (cli, name: string, options: { build?: string; follow?: boolean; lines: number }) => {
      const client = await cli.connect();
      const deployment = await findDeployment(client, name);
      const of = await logOf(client, deployment, options.build ?? null);
      if (options.follow) await followLog(cli, client, of, options.lines);
      else {
        const lines = await readLines(client, of, options.lines);
        for (const line of lines) show(cli, line);
        if (lines.length === 0) cli.out.note('Nothing was written yet.');
      }
      return EXIT.ok;
    }),
  );
}

interface LogOf {
  deployment_id: string;
  /** Null: of the deployment. */
  build_id: string | null;
}

async function logOf(client: Client, deployment: DeploymentView, build: string | null): Promise<LogOf> {
  const deployment_id = deployment.id;
  if (build === null || build.startsWith('bld_')) return { deployment_id, build_id: build };
  return { deployment_id, build_id: (await findVersion(client, deployment, build)).build_id };
}

async function readLines(client: Client, of: LogOf, lines: number): Promise<Line[]> {
  const { deployment_id: id, build_id } = of;
  const query = { lines };
  const { data } =
    build_id === null
      ? await client.get('/deployments/{id}/logs', { params: { id }, query })
      : await client.get('/deployments/{id}/builds/{build_id}/logs', { params: { id, build_id }, query });
  return data.lines;
}

async function followLog(cli: Cli, client: Client, of: LogOf, lines: number): Promise<void> {
  const base = `/deployments/${of.deployment_id}`;
  const path = of.build_id === null ? `${base}/logs` : `${base}/builds/${segment(of.build_id)}/logs`;
  const never = new AbortController().signal;
  for await (const { event, data } of client.events(path, { lines }, never)) {
    if (event === 'done') return;
    if (event === 'log_line') show(cli, data as Line);
  }
  throw new CliError(EXIT.unreachable, 'NO_ENGINE', 'The engine ended before the log did.', {
    next_step: 'When it is up again (`kiln up`), give the same command.',
  });
}

function show(cli: Cli, { ts, stream, line, source }: Line): void {
  const text = plainText(line);
  cli.out.emit({ ts, stream, source, line: text });
  const time = ts === undefined ? '' : `${cli.out.paint('dim', ts.slice(11, 19))} `;
  const from = source === undefined ? '' : `${cli.out.paint('dim', source === 'build' ? 'build' : 'app  ')} `;
  cli.out.line(`${time}${from}${stream === 'stderr' ? cli.out.paint('yellow', text) : text}`);
}
