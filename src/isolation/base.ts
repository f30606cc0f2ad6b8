import { arch, platform } from 'node:process';
import type { Answers } from './answers.ts';
import { findProgram } from './program.ts';
import { findToolchains } from './toolchain.ts';

/** How many parts of a tool's version decide whether a release built with one runs with another. */
const COMPATIBLE_PARTS: Record<string, number> = {
  node: 1,
  python3: 2,
  go: 2,
  elixir: 2,
  erl: 1,
  bun: 2,
  deno: 1,
  ruby: 2,
  php: 2,
  java: 1,
  dotnet: 1,
};

/**
 * What a release built here can run on, as stable text: `linux-x64;glibc-2.36;node-20;python3-3.11;go-1.26;…`.
 * Versions are cut to the part that promises compatibility, so that a patch update of the host does not make every
 * stored release unusable. `workspace` names the family of drivers: absolute paths in a build's output (virtual
 * environments have many) are only good where the workspace is at the same path.
 */
export async function describeBase(
  search_path: string,
  answers: Answers,
  workspace: 'fixed' | 'moving',
): Promise<string> {
  const [tools, libc] = await Promise.all([
    findToolchains(search_path, answers),
    askLibc(search_path, answers),
  ]);
  const versions = tools
    .filter((tool) => tool.name in COMPATIBLE_PARTS)
    .map((tool) => `${tool.name}-${tool.version.split('.').slice(0, COMPATIBLE_PARTS[tool.name]).join('.')}`);
  return [`${platform}-${arch}`, libc, ...versions, `workspace-${workspace}`].join(';');
}

/** Asked at every start: it takes 2 ms, and which file the answer is in differs from system to system. */
async function askLibc(search_path: string, answers: Answers): Promise<string> {
  const getconf = findProgram('getconf', search_path);
  if (getconf === null) return 'libc-unknown';
  return answers.ask({ file: getconf, args: ['GNU_LIBC_VERSION'], search: '/usr/bin:/bin' }).then(
    ({ lines }) => (lines[0] ?? '').replace(' ', '-'),
    () => 'libc-unknown',
  );
}
