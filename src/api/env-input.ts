/** Names and values of environment variables as callers send them. */
import { ENV_NAME } from '../domain/env-var.ts';
import { invalidFields } from './errors.ts';

export const ENV_VARS = 200;
const VALUE_BYTES = 64 * 1024;

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
    else if (Buffer.byteLength(value) > VALUE_BYTES)
      fields[`${field}.${name}`] = [`must be at most ${VALUE_BYTES} bytes`];
    else if (value.includes('\0')) fields[`${field}.${name}`] = ['must not hold NUL'];
  }
  if (Object.keys(fields).length > 0) throw invalidFields(fields);
  return env;
}
