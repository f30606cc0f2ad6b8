/**
 * The plans of test/fixtures/apps carried out for real: installed, built, started, asked for a page. Needs the
 * ecosystems' tools and registries; what is missing is skipped by name. `KILN_APPS=vite-react,django` runs only those.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { test } from 'node:test';
import type { Plan } from '../domain/plan.ts';
import { diskFiles } from './files.ts';
import { makePlan } from './plan.ts';

const APPS = new URL('../../test/fixtures/apps/', import.meta.url).pathname;
const COMMAND_MS = 300_000;
const START_MS = 60_000;

/** Fixtures whose packages are complete enough to build. The others hold only what the detector reads. */
const BUILDABLE = `
  astro-node astro-static bun-elysia bun-serve deno-serve django eleventy explicit-kiln-toml explicit-run-command
  explicit-vite fastapi-requirements fastapi-src-layout flask-development-server flask-factory flask-pyproject
  folder-with-app go-chi go-cmd go-gin go-net-http gradio monorepo-npm monorepo-pnpm-turbo monorepo-root-setting
  next-app next-custom-server next-export next-standalone node-express-npm node-fastify node-fixed-port
  node-hono-npm-lock node-loopback node-nest node-no-manifest node-nodemon node-plain-http node-tsx
  node-typescript-entry node-typescript-tsc nuxt-server nuxt-spa pnpm-app procfile-python python-pipenv python-plain
  python-poetry python-uv react-router-server rust-plain rust-workspace-axum serve-folder shell-script spring-maven
  static-plain static-public streamlit sveltekit-auto sveltekit-node sveltekit-static vite-express-server vite-outdir
  vite-react vitepress-docs yarn-berry-app yarn-classic-app elixir-plug-less php-plain
`
  .trim()
  .split(/\s+/);

const only = process.env.KILN_APPS?.split(',');
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
  };
}

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

for (const name of BUILDABLE.filter((one) => !only || only.includes(one))) {
  const result = makePlan(diskFiles(join(APPS, name)), { overrides: {} });
  assert.ok(result.ok, name);
  const { plan } = result;
  const missing = plan.toolchains.map((tool) => tool.name).find((tool) => !installed(tool));
  test(name, { skip: missing ? `${missing} is not installed` : false }, async () => {
    const work = mkdtempSync(join(tmpdir(), 'kiln-app-'));
    try {
      const source = join(work, 'workspace');
      cpSync(join(APPS, name), source, { recursive: true });
      const env = environment(join(work, 'home'));
      const cwd = join(source, plan.root);
      for (const command of [...plan.install, ...plan.build])
        await run(command, cwd, { ...env, ...plan.build_env });
      if (plan.kind === 'static')
        assert.ok(
          existsSync(join(source, plan.output_path, 'index.html')),
          `no index.html in ${plan.output_path}`,
        );
      if (plan.spa_fallback)
        assert.ok(existsSync(join(source, plan.output_path, plan.spa_fallback)), plan.spa_fallback);
      if (plan.kind === 'dynamic') await answers(plan, cwd, env);
    } finally {
      rmSync(work, { recursive: true, force: true, maxRetries: 3 });
    }
  });
}
