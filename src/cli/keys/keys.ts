import type { Command } from 'commander';
import type { Scope } from '../../domain/tenant.ts';
import { type Bind, examples } from '../cli.ts';
import { EXIT } from '../exit.ts';
import { formatAge } from '../output.ts';
import { wholeNumber } from '../plan-options.ts';

interface NewKey {
  scope?: string[];
  expiresInDays?: number;
}

const DAY_S = 24 * 3600;

export function define(command: Command, bind: Bind): void {
  command.description('API keys. A key can do no more than the one that made it.');
  examples(command, [
    ['kiln keys ls', 'what keys there are, and what each may'],
    ['kiln keys create ci --scope deployments:publish', 'for a CI job'],
    ['kiln keys revoke key_01k…', 'stops working at once'],
  ]);
  defineLs(command, bind);
  defineCreate(command, bind);
  defineRevoke(command, bind);
}

function defineLs(keys: Command, bind: Bind): void {
  const command = keys.command('ls').description('All keys, never the keys themselves.');
  examples(command, [['kiln keys ls', 'names, scopes and last use']]);
  command.action(
    bind(async (cli) => {
      const client = await cli.connect();
      const data = await Array.fromAsync(client.list('/api-keys'));
      cli.out.result({ data }, () =>
        cli.out.table(
          ['NAME', 'ID', 'KEY', 'STATUS', 'SCOPES', 'LAST USED'],
          data.map((one) => [
            one.name,
            one.id,
            `${one.key_prefix}…`,
            one.status,
            one.scopes.join(' '),
            one.last_used_at === null ? 'never' : formatAge(one.last_used_at, Date.now()),
          ]),
        ),
      );
      return EXIT.ok;
    }),
  );
}

function defineCreate(keys: Command, bind: Bind): void {
  const command = keys.command('create').description('Make a key. It is shown this once.');
  command
    .argument('<name>', 'what it is for')
    .option('--scope <scopes...>', 'what it may (default: what your key may)')
    .option('--expires-in-days <number>', 'days until it ends', wholeNumber(1, 3650));
  examples(command, [
    ['kiln keys create ci --scope deployments:publish sandboxes:write', 'publish, but not promote'],
    ['kiln keys create guest --scope deployments:read --expires-in-days 7', 'for a week'],
  ]);
  command.action(
    bind(async (cli, name: string, options: NewKey) => {
      const client = await cli.connect();
      const body = {
        name,
        // The API says which of them it does not know.
        ...(options.scope ? { scopes: options.scope as Scope[] } : {}),
        ...(options.expiresInDays ? { expires_in_sec: options.expiresInDays * DAY_S } : {}),
      };
      const answer = await client.post('/api-keys', { body });
      cli.out.result(answer.data, () => {
        cli.out.line(answer.data.key);
        cli.out.note(`Keep it: it is not shown again. It may: ${answer.data.scopes.join(' ')}.`);
      });
      return EXIT.ok;
    }),
  );
}

function defineRevoke(keys: Command, bind: Bind): void {
  const command = keys.command('revoke').description('Revoke a key; it stops working with the next request.');
  command.argument('<id>', 'key_…');
  examples(command, [['kiln keys revoke key_01k…', 'ids are in `kiln keys ls`']]);
  command.action(
    bind(async (cli, id: string) => {
      const client = await cli.connect();
      await client.delete('/api-keys/{id}', { params: { id } });
      cli.out.result({ id, status: 'revoked' }, () => cli.out.line(`${id} is revoked.`));
      return EXIT.ok;
    }),
  );
}
