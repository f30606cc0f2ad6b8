/**
 * The plans of test/fixtures/apps carried out for real: installed, built, started, asked for a page. Needs the
 * ecosystems' tools and registries; what is missing is skipped by name. `KILN_APPS=vite-react,django` runs
 * only those, `KILN_APPS=all` every one that is complete enough to build; the default takes a few minutes.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { after, describe, test } from 'node:test';
import buildable from '../../test/fixtures/buildable.json' with { type: 'json' };
import type { Plan } from '../domain/plan.ts';
import { findToolchains } from '../isolation/toolchain.ts';
import { diskFiles } from './files.ts';
import { makePlan } from './plan.ts';
import { checkToolchains } from './toolchain-check.ts';

const APPS = new URL('../../test/fixtures/apps/', import.meta.url).pathname;
const COMMAND_MS = 300_000;
const START_MS = 60_000;

const asked = process.env.KILN_APPS;
/**
 * `by_default`: every ecosystem, and each way of installing and starting, in minutes. `published`: test/ecosystems.system.test.ts
 * builds them by the same plans in an engine, twice, and visits them. The rest are larger downloads.
 */
const everything = [...buildable.by_default, ...buildable.published, ...buildable.on_request];
const chosen =
  asked === 'all'
    ? everything
    : asked
      ? everything.filter((name) => asked.split(',').includes(name))
      : buildable.by_default;
const path = [dirname(process.execPath), ...(process.env.PATH ?? '').split(delimiter)];

/** What a builder gives: tools, a home of its own, and what the registries of this machine need. */
function environment(home: string): Record<string, string> {
  const kept =
    /^(?:https?_proxy|no_proxy|.*_CA_.*|.*_CERTS?$|.*CERT.*|.*CAINFO|.*CA_BUNDLE|GOPROXY|GOSUMDB|PIP_\w+|npm_config_\w+|LANG)$/i;
  const entries = Object.entries(process.env).filter(([name]) => kept.test(name)) as [string, string][];
  // The user's own tool shims look for their data in the real home.
  const roots = {
    PYENV_ROOT: process.env.PYENV_ROOT,
    RUSTUP_HOME: process.env.RUSTUP_HOME ?? `${process.env.HOME}/.rustup`,
  };
  return {
    ...Object.fromEntries(entries),
    ...(roots as Record<string, string>),
    PATH: path.join(delimiter),
    HOME: home,
    // Each app has a home of its own; only what compilers and registries would give again is shared.
    GOCACHE: join(caches, 'go'),
    npm_config_cache: join(caches, 'npm'),
    MAVEN_OPTS: `-Dmaven.repo.local=${join(caches, 'maven')}`,
  };
}

const caches = mkdtempSync(join(tmpdir(), 'kiln-caches-'));
after(() => rmSync(caches, { recursive: true, force: true, maxRetries: 3 }));

const installed = (tool: string): boolean => path.some((dir) => existsSync(join(dir, tool)));

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}

function shell(
  command: string,
  cwd: string,
  env: Record<string, string>,
): { child: ChildProcess; output: () => string } {
  const child = spawn('sh', ['-c', command], { cwd, env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  const keep = (chunk: Buffer) => {
    output = (output + chunk.toString()).slice(-4000);
  };
  child.stdout!.on('data', keep);
  child.stderr!.on('data', keep);
  return { child, output: () => output };
}

function killGroup(child: ChildProcess): void {
  try {
    process.kill(-child.pid!, 'SIGKILL');
  } catch {
    // Gone already.
  }
}

async function run(command: string, cwd: string, env: Record<string, string>): Promise<void> {
  const { child, output } = shell(command, cwd, env);
  const timer = setTimeout(() => killGroup(child), COMMAND_MS);
  const [code] = await once(child, 'close');
  clearTimeout(timer);
  assert.equal(code, 0, `${command}\n${output()}`);
}

async function answers(plan: Plan, cwd: string, env: Record<string, string>): Promise<void> {
  const PORT = String(await freePort());
  const { child, output } = shell(plan.start!, cwd, { ...env, ...plan.run_env, PORT });
  const closed = once(child, 'close');
  const url = `http://127.0.0.1:${plan.port ?? PORT}${plan.health_check_path}`;
  try {
    for (const deadline = Date.now() + START_MS; ; ) {
      const response = await fetch(url, { redirect: 'manual', signal: AbortSignal.timeout(5000) }).catch(
        () => null,
      );
      if (response?.ok) break;
      assert.equal(child.exitCode, null, `${plan.start}\n${output()}`);
      assert.ok(
        Date.now() < deadline,
        `no 2xx from ${url} (${response?.status})\n${plan.start}\n${output()}`,
      );
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  } finally {
    killGroup(child);
    await closed;
  }
}

const offered = await findToolchains(path.join(delimiter));

/** Maven's local repository is not made for two at a time. */
let maven: Promise<void> = Promise.resolve();

// Two at a time: much of a build is waiting for a registry.
describe('apps', { concurrency: 2 }, () => {
  for (const name of chosen) {
    const result = makePlan(diskFiles(join(APPS, name)), { overrides: {} });
    assert.ok(result.ok, name);
    const tools = result.plan.toolchains.map((tool) => tool.name);
    const missing = tools.find((tool) => !installed(tool));
    const versions = checkToolchains(result.plan, offered);
    const skip = missing ? `${missing} is not installed` : versions.ok ? false : versions.message;
    test(name, { skip }, async () => {
      assert.ok(versions.ok);
      if (!tools.includes('mvn')) return await carryOut(name, versions.plan);
      const turn = maven.then(() => carryOut(name, versions.plan));
      maven = turn.catch(() => undefined);
      await turn;
    });
  }
});

async function carryOut(name: string, plan: Plan): Promise<void> {
  const work = mkdtempSync(join(tmpdir(), 'kiln-app-'));
  try {
    const source = join(work, 'workspace');
    cpSync(join(APPS, name), source, { recursive: true });
    const env = environment(join(work, 'home'));
    const cwd = join(source, plan.root);
    for (const command of [...plan.install, ...plan.build])
      await run(command, cwd, { ...env, ...plan.build_env });
    if (plan.kind === 'dynamic') {
      // A release leaves these out.
      rmSync(join(cwd, '.kiln/tools'), { recursive: true, force: true });
      return await answers(plan, cwd, env);
    }
    for (const page of ['index.html', plan.spa_fallback ?? 'index.html'])
      assert.ok(existsSync(join(source, plan.output_path, page)), `no ${page} in ${plan.output_path}`);
    const served = readdirSync(join(source, plan.output_path));
    assert.deepEqual(
      served.filter((file) => /^package\.json$|\.py$|^node_modules$/.test(file)),
      [],
    );
  } finally {
    rmSync(work, { recursive: true, force: true, maxRetries: 3 });
  }
}
