import assert from 'node:assert/strict';
import { test } from 'node:test';
import { z } from 'zod';
import { inWords } from './issue.ts';

test('every kind of complaint in plain words', () => {
  const says = (schema: z.ZodType, value: unknown) => inWords(schema.safeParse(value).error!.issues[0]!);
  assert.equal(says(z.object({ a: z.string() }), {}), 'is missing');
  assert.equal(says(z.string(), 1), 'must be a text');
  assert.equal(says(z.number().int(), 1.5), 'must be a whole number');
  assert.equal(says(z.number().max(32), 40), 'must be at most 32');
  assert.equal(says(z.string().min(1), ''), 'must be at least 1 character long');
  assert.equal(says(z.array(z.string()).max(1), ['a', 'b']), 'must be at most 1 long');
  assert.equal(says(z.enum(['a', 'b']), 'c'), 'must be one of a, b');
  assert.equal(says(z.strictObject({}), { x: 1 }), 'has no field x');
  assert.equal(says(z.string().regex(/^a/, 'must begin with a'), 'b'), 'must begin with a');
});
