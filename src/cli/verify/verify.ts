import type { Command } from 'commander';
import type { OperationView } from '../../api/contract/operation.ts';
import { type Bind, examples } from '../cli.ts';
import { EXIT, type ExitCode } from '../exit.ts';
import { findVersionAnywhere } from '../find.ts';
import type { Output } from '../output.ts';
import { Progress } from '../progress.ts';

const POLL_SECONDS = 20;

export function define(command: Command, bind: Bind): void {
  command
    .description(
      'Build the stored snapshot of a version once more, in a fresh machine, and compare it with its release. Changes nothing. Ends with 1 when they differ.',
    )
    .argument('<version>', 'ver_…');
  examples(command, [
    ['kiln verify ver_01k…', 'says which files differ, if any'],
    ['kiln verify ver_01k… --json', 'the operation with its result'],
  ]);
  command.action(
    bind(async (cli, id: string) => {
      const client = await cli.connect();
      const version = await findVersionAnywhere(client, id);
      const progress = new Progress(cli.out);
      try {
        const path = `/deployments/${version.deployment_id}/versions/${version.id}/verify`;
        let { data } = await client.post<{ data: OperationView }>(path, { body: {} });
        progress.begin('rebuild');
        while (data.finished_at === null) {
          progress.detail(data.stage);
          ({ data } = await client.get<{ data: OperationView }>(
            `/operations/${data.id}?wait=${POLL_SECONDS}`,
          ));
        }
        progress.end('rebuild', { ok: data.failure === null, duration_ms: null });
        return report(cli.out, data);
      } finally {
        progress.stop();
      }
    }),
  );
}

function report(out: Output, operation: OperationView): ExitCode {
  const { result, failure } = operation;
  out.result(operation, () => {
    if (failure) {
      out.line(`The rebuild failed: ${failure.message}`);
      out.line(failure.next_step);
    } else if (result?.reproducible) out.line(`The same, to the byte: sha256 ${result.stored_sha256}`);
    else if (result) {
      out.line(
        `${result.differences_total} paths differ (stored ${result.stored_sha256.slice(0, 12)}, rebuilt ${result.rebuilt_sha256.slice(0, 12)}):`,
      );
      out.table(
        ['PATH', 'DIFFERS IN'],
        result.differences.map(({ path, what }) => [path, what]),
      );
    }
  });
  if (failure) return failure.fault === 'user' ? EXIT.build : EXIT.engine;
  return result?.reproducible ? EXIT.ok : EXIT.engine;
}
