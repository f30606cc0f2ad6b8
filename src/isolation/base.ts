import { execFile } from 'node:child_process';
import { arch, platform } from 'node:process';
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
export async function describeBase(search_path: string, workspace: 'fixed' | 'moving'): Promise<string> {
  const tools = await findToolchains(search_path);
  const versions = tools
    .filter((tool) => tool.name in COMPATIBLE_PARTS)
    .map((tool) => `${tool.name}-${tool.version.split('.').slice(0, COMPATIBLE_PARTS[tool.name]).join('.')}`);
  return [`${platform}-${arch}`, await libc(), ...versions, `workspace-${workspace}`].join(';');
}

function libc(): Promise<string> {
  return new Promise((resolve) => {
    execFile('getconf', ['GNU_LIBC_VERSION'], { timeout: 5000 }, (error, stdout) =>
      resolve(error === null ? stdout.trim().replace(' ', '-') : 'libc-unknown'),
    );
  });
}
