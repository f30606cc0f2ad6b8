/** Names and values of environment variables as callers send them. */
import { ENV_NAME } from '../domain/env-var.ts';
import { invalidFields } from './errors.ts';

export const ENV_VARS = 200;
const VALUE_BYTES = 64 * 1024;
/**
 * Of all of them: Linux starts a program with at most 2 MiB of arguments and environment (a quarter of the usual stack). Two
 * environments may come together (what is kept and what a call brings), with the command and what drivers add.
 */
const TOTAL_BYTES = 512 * 1024;
/** What the kernel counts besides name and value: `=`, the end, and a pointer. */
const EACH_BYTES = 10;

/** Errors: VALIDATION_ERROR with a message per variable. */
export function checkEnv(env: Record<string, string>, field: string): Record<string, string> {
  const fields: Record<string, string[]> = {};
  const names = Object.keys(env);
  if (names.length > ENV_VARS) fields[field] = [`must be at most ${ENV_VARS} variables`];
  for (const name of names.slice(0, ENV_VARS)) {
    const value = env[name]!;
    if (!ENV_NAME.test(name) || name === '__proto__')
      fields[`${field}.${name.slice(0, 100)}`] = [
        'is not a variable name (letters, digits and _, not starting with a digit)',
      ];
    else if (bytesOf(value) > VALUE_BYTES)
      fields[`${field}.${name}`] = [`must be at most ${VALUE_BYTES} bytes`];
    else if (value.includes('\0')) fields[`${field}.${name}`] = ['must not hold NUL'];
  }
  const total = names.reduce((sum, name) => sum + bytesOf(name) + bytesOf(env[name]!) + EACH_BYTES, 0);
  if (total > TOTAL_BYTES)
    fields[field] ??= [
      `is ${total} bytes altogether, must be at most ${TOTAL_BYTES}; put large values into a file and name that`,
    ];
  if (Object.keys(fields).length > 0) throw invalidFields(fields);
  return env;
}

const bytesOf = (text: string) => Buffer.byteLength(text);
