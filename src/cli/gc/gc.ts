import type { Command } from 'commander';
import type { Schema } from '../../client/client.ts';
import { type Bind, examples } from '../cli.ts';
import { EXIT } from '../exit.ts';
import { formatBytes, plural } from '../output.ts';

const GC_TIMEOUT_MS = 10 * 60_000;

type GcReport = Schema<'GcReport'>;

export function define(command: Command, bind: Bind): void {
  command.option('--dry-run', 'say what would go and why the rest stays; remove nothing');
  examples(command, [
    ['kiln gc --dry-run', 'what would go, and why the rest stays'],
    ['kiln gc', 'remove it'],
  ]);
  command.action(
    bind(async (cli, options: { dryRun?: boolean }) => {
      const client = await cli.connect();
      const { data } = await client.post('/gc', {
        query: { dry_run: options.dryRun ? 'true' : 'false' },
        timeout_ms: GC_TIMEOUT_MS,
      });
      cli.out.result(data, () => {
        const rows = (items: GcReport['kept'], verdict: string) =>
          items.map((item) => [verdict, item.kind, formatBytes(item.size_bytes), item.reason, item.key]);
        cli.out.table(
          ['', 'KIND', 'SIZE', 'WHY', 'KEY'],
          [...rows(data.removed, data.dry_run ? 'would go' : 'removed'), ...rows(data.kept, 'stays')],
        );
        const freed = `${plural(data.removed.length, 'object')}, ${formatBytes(data.removed_bytes)}`;
        cli.out.line(data.dry_run ? `Would remove ${freed}. Nothing was touched.` : `Removed ${freed}.`);
      });
      return EXIT.ok;
    }),
  );
}
