/**
 * How the code of an app that insists on a port is brought to listen on another: what Node, Python and Ruby load before
 * the app's own code (the files of this folder), and the variables that make them do so. Where several instances share
 * the host's ports, one such app could otherwise run only once, so no second version could be proved beside the first.
 */
import { cp } from 'node:fs/promises';
import { join } from 'node:path';
import type { MovedPort } from '../driver.ts';

/** Laid out per machine: what an interpreter writes beside what it loads is the machine's, and goes with it. */
export async function layOutPreloads(private_dir: string): Promise<string> {
  const dir = join(private_dir, 'moved-port');
  for (const name of ['node.cjs', 'python', 'ruby'])
    await cp(join(import.meta.dirname, name), join(dir, name), {
      recursive: true,
      filter: (path) => !path.includes('__pycache__'),
    });
  return dir;
}

/** The app's environment with the preloads that the machine sees in `dir`; what the app itself says there stays. */
export function withMovedPort(
  env: Record<string, string>,
  { declared, assigned }: MovedPort,
  dir: string,
): Record<string, string> {
  const joined = (by: string, ...texts: (string | undefined)[]) => texts.filter(Boolean).join(by);
  return {
    ...env,
    KILN_PORT_DECLARED: String(declared),
    KILN_PORT_ASSIGNED: String(assigned),
    NODE_OPTIONS: joined(' ', env.NODE_OPTIONS, `--require=${nodeWord(`${dir}/node.cjs`)}`),
    PYTHONPATH: joined(':', `${dir}/python`, env.PYTHONPATH),
    // RUBYOPT has no way to quote a path.
    RUBYLIB: joined(':', `${dir}/ruby`, env.RUBYLIB),
    RUBYOPT: joined(' ', env.RUBYOPT, '-rkiln_moved_port'),
  };
}

/** Quoted only where it must be: Node reads quotes from version 12 on. */
const nodeWord = (path: string): string =>
  /[\s"\\]/.test(path) ? `"${path.replace(/[\\"]/g, '\\$&')}"` : path;
