import assert from 'node:assert/strict';
import { test } from 'node:test';
import { missingBuildVariable, missingVariable } from './missing-variable.ts';

test('what programs say of a variable that they lack', () => {
  for (const line of [
    'Error: STRIPE_KEY is not set',
    'STRIPE_KEY must be set',
    'The STRIPE_KEY environment variable is required',
    'Error: Missing required environment variable: STRIPE_KEY',
    'error: Environment variable not found: STRIPE_KEY.',
    "KeyError: 'STRIPE_KEY'",
  ])
    assert.deepEqual([missingVariable(line), missingBuildVariable(line)], ['STRIPE_KEY', 'STRIPE_KEY'], line);
});

test('a build that misses something else', () => {
  for (const line of [
    "error TS2741: Property 'MAX_SIZE' is missing in type '{}' but required in type 'Limits'.",
    'To ignore this error, set the PRISMA_ENGINES_CHECKSUM_IGNORE_MISSING environment variable to a truthy value.',
    'main.c:4:9: error: MAX_SIZE undeclared',
    'TypeError: user_name is not defined',
    "npm warn config production Use `--omit=dev` instead, NODE_ENV is set to 'production'",
  ])
    assert.equal(missingBuildVariable(line), null, line);
});
