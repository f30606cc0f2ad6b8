/** Apps as their ecosystems make them, and what of those ecosystems can be had on this machine. */
import { execFile } from 'node:child_process';
import { cp, rename, rm } from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';
import { promisify } from 'node:util';
import { findProgram } from '../../src/isolation/program.ts';
import { findToolchains } from '../../src/isolation/toolchain.ts';
import { tempDir } from './folders.ts';

const run = promisify(execFile);
const FIXTURES = path.join(import.meta.dirname, '../fixtures/apps');
const PROBE_MS = 5000;
const GENERATE_MS = 120_000;

export type Need =
  | 'npm'
  | 'pypi'
  | 'node'
  | 'npm-tool'
  | 'python3'
  | 'go'
  | 'go-modules'
  | 'elixir'
  | 'ruby'
  | 'php'
  | 'php-mbstring'
  | 'java'
  | 'cargo'
  | 'ipv6';

const REGISTRIES: Partial<Record<Need, string>> = {
  npm: 'https://registry.npmjs.org/is-number',
  pypi: 'https://pypi.org/simple/itsdangerous/',
  'go-modules': 'https://proxy.golang.org/github.com/go-chi/chi/v5/@v/list',
};

/** What is missing here, with the reason; asked once. */
export async function missingNeeds(): Promise<Map<Need, string>> {
  const missing = new Map<Need, string>();
  const tools = (await findToolchains(process.env.PATH ?? '')).map((tool) => tool.name);
  const programs: [Need, string][] = [
    ['node', 'node'],
    ['npm-tool', 'npm'],
    ['python3', 'python3'],
    ['go', 'go'],
    ['elixir', 'elixir'],
    ['ruby', 'ruby'],
    ['php', 'php'],
    ['java', 'java'],
    ['cargo', 'cargo'],
  ];
  for (const [need, tool] of programs)
    if (!tools.includes(tool)) missing.set(need, `${tool} is not installed`);
  if (findProgram('javac', process.env.PATH) === null) missing.set('java', 'javac is not installed');
  const modules = await run('php', ['-m']).catch(() => ({ stdout: '' }));
  if (!/^mbstring$/m.test(modules.stdout)) missing.set('php-mbstring', 'php has no mbstring');
  if (!(await hasIpv6())) missing.set('ipv6', 'this machine has no ::1');
  await Promise.all(
    Object.entries(REGISTRIES).map(async ([need, url]) => {
      const answer = await fetch(url, { signal: AbortSignal.timeout(PROBE_MS) }).catch(() => null);
      await answer?.body?.cancel();
      if (!answer?.ok)
        missing.set(
          need as Need,
          `${new URL(url).host} ${answer ? `answers ${answer.status}` : 'cannot be reached'}`,
        );
    }),
  );
  return missing;
}

function hasIpv6(): Promise<boolean> {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.once('error', () => resolve(false));
    server.listen(0, '::1', () => server.close(() => resolve(true)));
  });
}

/** A copy of an app of test/fixtures/apps. */
export async function fixture(name: string): Promise<string> {
  const dir = await tempDir('fixture');
  await cp(path.join(FIXTURES, name), dir, { recursive: true });
  await rm(path.join(dir, 'expected-plan.json'));
  return dir;
}

/** What `npx <package> app <args>` makes; rejects with what the generator said. */
export async function generated(package_name: string, ...args: string[]): Promise<string> {
  const dir = await tempDir('generated');
  const done = run('npx', ['--yes', package_name, 'app', ...args], {
    cwd: dir,
    timeout: GENERATE_MS,
    env: { ...process.env, CI: 'true', NEXT_TELEMETRY_DISABLED: '1' },
  });
  done.child.stdin?.end();
  await done;
  const app = `${dir}-app`;
  await rename(path.join(dir, 'app'), app);
  await rm(dir, { recursive: true, force: true });
  return app;
}
