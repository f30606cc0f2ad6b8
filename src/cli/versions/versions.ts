import type { Command } from 'commander';
import type { VersionView } from '../../api/contract/version.ts';
import { type Bind, examples } from '../cli.ts';
import { EXIT } from '../exit.ts';
import { findDeployment } from '../find.ts';
import { formatAge, formatDuration } from '../output.ts';
import { wholeNumber } from '../plan-options.ts';

export function define(command: Command, bind: Bind): void {
  command
    .argument('<name>', 'deployment')
    .option('--limit <number>', 'at most so many, newest first', wholeNumber(1, 10_000), 20);
  examples(command, [
    ['kiln versions shop', 'the newest 20, the live one marked'],
    ['kiln versions shop --limit 200 --json', 'as data'],
  ]);
  command.action(
    bind(async (cli, name: string, options: { limit: number }) => {
      const client = await cli.connect();
      const deployment = await findDeployment(client, name);
      const data: VersionView[] = [];
      for await (const version of client.list('/deployments/{id}/versions', {
        params: { id: deployment.id },
        query: { limit: Math.min(options.limit, 200) },
      })) {
        data.push(version);
        if (data.length === options.limit) break;
      }
      cli.out.result({ active_version_id: deployment.active_version_id, data }, () => {
        if (data.length === 0) cli.out.line(`${deployment.slug} has no version yet.`);
        cli.out.table(
          ['', 'NR', 'ID', 'STATE', 'KIND', 'TOOK', 'CREATED', ''],
          data.map((version) => [
            version.id === deployment.active_version_id ? '*' : '',
            String(version.version_number),
            version.id,
            version.state,
            version.kind,
            formatDuration(Object.values(version.stage_times).reduce((sum, ms) => sum + ms, 0)),
            formatAge(version.created_at, Date.now()),
            remark(version),
          ]),
        );
      });
      return EXIT.ok;
    }),
  );
}

function remark(version: VersionView): string {
  if (version.failure) return `${version.failure.code}: ${version.failure.message}`.slice(0, 80);
  if (version.superseded) return 'superseded';
  return version.reused_release ? 'release reused' : '';
}
