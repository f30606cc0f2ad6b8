/** What is wrong with a field, in the words of the other messages. */
import type { ZodError } from 'zod';

type Issue = ZodError['issues'][number];

const KINDS: Record<string, string> = {
  string: 'a text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'a list',
  object: 'an object',
  record: 'an object',
};
/** What zod says by itself; a message that a schema gives stays. */
const ZODS_OWN = /^(?:Invalid (?:input|option)|Too (?:small|big)|Unrecognized key)/;

export function inWords(issue: Issue): string {
  if (!ZODS_OWN.test(issue.message)) return issue.message;
  switch (issue.code) {
    case 'invalid_type':
      return issue.message.endsWith('received undefined')
        ? 'is missing'
        : `must be ${KINDS[issue.expected] ?? issue.expected}`;
    case 'too_small':
      return `must be at least ${amount(Number(issue.minimum), issue.origin)}`;
    case 'too_big':
      return `must be at most ${amount(Number(issue.maximum), issue.origin)}`;
    case 'invalid_value':
      return `must be ${issue.values.length === 1 ? '' : 'one of '}${issue.values.map(String).join(', ')}`;
    case 'unrecognized_keys':
      return `has no field ${issue.keys.map((key) => key.slice(0, 100)).join(', ')}`;
    default:
      return issue.message;
  }
}

function amount(limit: number, origin: string): string {
  if (origin === 'string') return `${limit} character${limit === 1 ? '' : 's'} long`;
  return origin === 'array' ? `${limit} long` : String(limit);
}
