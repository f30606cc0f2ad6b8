/** Variables as they are typed: `NAME=VALUE`, where the value `-` is what standard input brings. */
import type { Cli } from './cli.ts';
import { badInput } from './exit.ts';

const MAX_VALUE_BYTES = 1024 * 1024;

/** The same pairs, with the value from standard input where one asks for it. */
export async function withStandardInput(cli: Cli, pairs: [string, string][]): Promise<[string, string][]> {
  const asking = pairs.filter(([, value]) => value === '-');
  if (asking.length === 0) return pairs;
  if (asking.length > 1) throw badInput('Only one value can be read from standard input.');
  const read = await readAll(cli);
  return pairs.map(([name, value]) => [name, value === '-' ? read : value]);
}

/** One line end at the end is the editor's or echo's, not the value's. */
async function readAll(cli: Cli): Promise<string> {
  const pieces: Buffer[] = [];
  let size = 0;
  for await (const piece of cli.stdin) {
    pieces.push(Buffer.from(piece as Buffer));
    size += pieces.at(-1)!.length;
    if (size > MAX_VALUE_BYTES) throw badInput(`The value is larger than ${MAX_VALUE_BYTES} bytes.`);
  }
  return Buffer.concat(pieces)
    .toString('utf8')
    .replace(/\r?\n$/, '');
}
