import { ENV_NAME } from '../domain/env-var.ts';

/** @throws Error on a name that no shell could set, and on a value that would end an argument early. */
export function checkEnvironment(env: Record<string, string>, whose: string): void {
  for (const [name, value] of Object.entries(env))
    if (!ENV_NAME.test(name) || value.includes('\0'))
      throw new Error(`environment variable ${JSON.stringify(name)} cannot be passed to ${whose}`);
}
