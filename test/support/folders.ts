import { rmSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';

export type Flags = Record<string, string>;

export function flagsFor(data_dir: string, more: Flags = {}): Flags {
  return {
    data: data_dir,
    'api-port': '0',
    'edge-port': '0',
    'startup-limit': '15',
    grace: '0',
    'log-level': 'warn',
    // To see how the tests fare where bubblewrap is not installed: KILN_TEST_ISOLATION=process npm test
    isolation: process.env.KILN_TEST_ISOLATION ?? 'auto',
    ...more,
  };
}

const made: string[] = [];

/** Goes with the process, at the latest. */
export async function tempDir(name: string): Promise<string> {
  if (made.length === 0) process.once('exit', removeMade);
  const dir = await mkdtemp(path.join(os.tmpdir(), `kiln-${name}-`));
  made.push(dir);
  return dir;
}

function removeMade(): void {
  for (const dir of made) {
    try {
      rmSync(dir, { recursive: true, force: true });
    } catch {
      // What something still holds is no failure of the test.
    }
  }
}
