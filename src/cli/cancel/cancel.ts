import type { Command } from 'commander';
import type { OperationView } from '../../api/contract/operation.ts';
import { isFinished } from '../../domain/operation.ts';
import { type Bind, examples } from '../cli.ts';
import type { Client } from '../client.ts';
import { badInput, EXIT } from '../exit.ts';
import { findVersionAnywhere } from '../find.ts';

/** The engine ends a build within 5 s. */
const WAIT_S = 15;

export function define(command: Command, bind: Bind): void {
  command.argument('<id>', 'version (ver_…) or operation (op_…)');
  examples(command, [
    ['kiln cancel ver_01k…', 'stop its publish; production is not touched'],
    ['kiln cancel op_01k…', 'the same by operation'],
  ]);
  command.action(
    bind(async (cli, id: string) => {
      if (!/^(ver|op)_/.test(id))
        throw badInput(`${id} is neither a version nor an operation.`, 'Give an id: ver_… or op_….');
      const client = await cli.connect();
      let operation = await cancel(client, id);
      if (!isFinished(operation.state))
        operation = (
          await client.get('/operations/{operation_id}', {
            params: { operation_id: operation.id },
            query: { wait: WAIT_S },
          })
        ).data;
      const cancelled = operation.state === 'cancelled';
      cli.out.result({ ok: cancelled, operation }, () =>
        cli.out.line(
          cancelled
            ? 'Cancelled. Production is unchanged.'
            : `The operation is ${operation.state}; too late to cancel.`,
        ),
      );
      return cancelled ? EXIT.ok : EXIT.input;
    }),
  );
}

async function cancel(client: Client, id: string): Promise<OperationView> {
  if (id.startsWith('op_'))
    return (await client.post('/operations/{operation_id}/cancel', { params: { operation_id: id } })).data;
  const { deployment_id, id: version_id } = await findVersionAnywhere(client, id);
  const params = { id: deployment_id, version_id };
  return (await client.post('/deployments/{id}/versions/{version_id}/cancel', { params })).data;
}
