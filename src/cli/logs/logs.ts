import type { Command } from 'commander';
import type { DeploymentView } from '../../api/contract/deployment.ts';
import { type Bind, type Cli, examples } from '../cli.ts';
import { type Client, segment } from '../client.ts';
import { EXIT } from '../exit.ts';
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
      const path = await logPath(client, deployment, options.build ?? null);
      if (options.follow) await followLog(cli, client, path, options.lines);
      else {
        const answer = await client.get<{ data: { lines: Line[] } }>(path, {
          query: { lines: options.lines },
        });
        for (const line of answer.data.lines) show(cli, line);
        if (answer.data.lines.length === 0) cli.out.note('Nothing was written yet.');
      }
      return EXIT.ok;
    }),
  );
}

async function logPath(client: Client, deployment: DeploymentView, build: string | null): Promise<string> {
  const base = `/deployments/${deployment.id}`;
  if (build === null) return `${base}/logs`;
  const id = build.startsWith('bld_') ? build : (await findVersion(client, deployment, build)).build_id;
  return `${base}/builds/${segment(id)}/logs`;
}

async function followLog(cli: Cli, client: Client, path: string, lines: number): Promise<void> {
  const never = new AbortController().signal;
  for await (const { event, data } of client.events(path, { lines }, never)) {
    if (event === 'done') return;
    if (event === 'log_line') show(cli, data as Line);
  }
}

function show(cli: Cli, { ts, stream, line, source }: Line): void {
  const text = plainText(line);
  cli.out.emit({ ts, stream, source, line: text });
  const time = ts === undefined ? '' : `${cli.out.paint('dim', ts.slice(11, 19))} `;
  const from = source === undefined ? '' : `${cli.out.paint('dim', source === 'build' ? 'build' : 'app  ')} `;
  cli.out.line(`${time}${from}${stream === 'stderr' ? cli.out.paint('yellow', text) : text}`);
}
