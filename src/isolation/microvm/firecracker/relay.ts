import { execFile } from 'node:child_process';
import { readFile, realpath } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { type CpioEntry, file, folder } from '../builder-image/initramfs.ts';

/**
 * What a guest of Firecracker needs in its initramfs: the script that joins its devices to the agent, and the host's
 * own socat (with vsock) together with its libraries, about 10 MB. Images that run as instances have no such program,
 * and a static one is not packaged.
 */
const LIBRARY = /^\s*(?:\S+ => )?(\/\S+) \(0x[0-9a-f]+\)$/;

export async function relayFiles(socat: string): Promise<CpioEntry[]> {
  const { stdout } = await promisify(execFile)('ldd', [socat], { timeout: 10_000 });
  const libraries = readLibraries(stdout);
  const loader = libraries.find((path) => /^ld(-|\.|64)/.test(basename(path)));
  if (loader === undefined)
    throw new Error(`${socat} has no loader among its libraries: ${stdout.slice(0, 300)}`);
  const entries = [folder('relay'), file('relay/socat', await readFile(socat), 0o755)];
  entries.push(file('relay/ld.so', await readFile(await realpath(loader)), 0o755));
  for (const path of libraries)
    if (path !== loader)
      entries.push(file(`relay/${basename(path)}`, await readFile(await realpath(path)), 0o755));
  const script = await readFile(join(import.meta.dirname, 'hypervisor.sh'));
  return [...entries, file('hypervisor.sh', script, 0o755)];
}

/** Paths in the output of ldd, sorted: the archive is the same for the same files. */
export function readLibraries(text: string): string[] {
  return text
    .split('\n')
    .map((line) => LIBRARY.exec(line)?.[1])
    .filter((path) => path !== undefined)
    .sort();
}
