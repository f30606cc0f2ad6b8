/**
 * Real apps through the real engine: made by their ecosystems' own generators where there is one that works without
 * asking, published, visited at the edge, published again. What needs a registry or a toolchain that is not there is
 * skipped by name. `KILN_APPS="go net/http,flask"` runs only those.
 */
import assert from 'node:assert/strict';
import { rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { findProgram } from '../src/isolation/program.ts';
import buildable from './fixtures/buildable.json' with { type: 'json' };
import { JAVA_SERVER, staticSite, writeApp } from './support/apps.ts';
import type { Answer, Json } from './support/client.ts';
import { fixture, generated, missingNeeds, type Need } from './support/ecosystems.ts';
import type { Flags } from './support/folders.ts';
import { type Kiln, startKiln } from './support/kiln.ts';

const PUBLISH_MS = 300_000;

interface Case {
  name: string;
  needs: Need[];
  source: () => Promise<string>;
  /** The folder in test/fixtures/apps that it is. */
  fixture?: string;
  publish?: Record<string, unknown>;
  kind: 'static' | 'dynamic';
  /** What the build log has to tell. */
  log: RegExp[];
  /** Asks the edge; fails if the answers are not the app's. */
  visit: (get: (path: string) => Promise<Answer>) => Promise<void>;
  /** Why two builds of it differ; without it they must not (I11). */
  differs?: string;
  /** Also run with the process driver. */
  small?: boolean;
  /** Also run under bubblewrap when another driver is the strongest here: it reads settings of the host's /etc. */
  host_settings?: boolean;
}

const says =
  (text: string | RegExp, at = '/') =>
  async (get: (path: string) => Promise<Answer>) => {
    const page = await get(at);
    assert.equal(page.status, 200, page.body);
    assert.match(page.body, typeof text === 'string' ? new RegExp(text) : text);
  };

async function hashedAsset(get: (path: string) => Promise<Answer>, pattern: RegExp): Promise<void> {
  const asset = pattern.exec((await get('/')).body)?.[1];
  assert.ok(asset, 'the page names a hashed asset');
  const answer = await get(asset);
  assert.equal(answer.status, 200, asset);
  assert.match(answer.headers['content-type']!, /javascript/);
}

/** The starter of create-next-app, without the fonts it would load from Google while it builds. */
async function nextStarter(): Promise<string> {
  const dir = await generated(
    'create-next-app@latest',
    ...['--js', '--app', '--no-tailwind', '--no-eslint', '--no-src-dir', '--yes'],
    ...['--skip-install', '--disable-git', '--import-alias', '@/*'],
  );
  const layout = `import './globals.css';
export default function Layout({ children }) { return <html lang="en"><body>{children}</body></html>; }
`;
  await writeFile(path.join(dir, 'app', 'layout.js'), layout);
  return dir;
}

const listensOn = (address: string) =>
  writeApp({
    'server.js': `const http = require('http');
http.createServer((q, s) => s.end('on ${address}')).listen(process.env.PORT, '${address}');`,
  });

const app = (name: string) => ({ fixture: name, source: () => fixture(name) });

const CASES: Case[] = [
  {
    name: 'static folder',
    needs: [],
    source: () => staticSite('plain files'),
    kind: 'static',
    log: [/Only static files/],
    visit: says('plain files'),
    small: true,
  },
  {
    name: 'vite react',
    needs: ['node', 'npm-tool', 'npm'],
    source: () => generated('create-vite@latest', '--template', 'react', '--no-interactive'),
    kind: 'static',
    log: [/npm install|npm ci/, /vite build/, /built in/],
    visit: async (get) => {
      await hashedAsset(get, /src="(\/assets\/[^"]+\.js)"/);
      const page = await get('/some/deep/page');
      assert.equal(page.status, 200, 'the fallback of a single-page app');
      assert.match(page.body, /<div id="root">/);
      const missing = await get('/assets/x.js');
      assert.equal(missing.status, 404);
      assert.match(missing.headers['cache-control'] ?? '', /no-store/);
    },
  },
  {
    name: 'astro',
    needs: ['node', 'npm-tool', 'npm'],
    ...app('astro-static'),
    kind: 'static',
    log: [/astro build/],
    visit: says(/<html|<h1/i),
  },
  {
    name: 'express',
    needs: ['node', 'npm-tool', 'npm'],
    source: () => generated('express-generator@4', '--no-view'),
    kind: 'dynamic',
    log: [/added \d+ packages/, /health: passed/],
    visit: async (get) => {
      await says('Express')(get);
      await says('respond with a resource', '/users')(get);
    },
  },
  {
    name: 'next',
    needs: ['node', 'npm-tool', 'npm'],
    source: nextStarter,
    kind: 'dynamic',
    log: [/next build/, /Compiled successfully/, /health: passed/],
    visit: async (get) => {
      await says('To get started')(get);
      await hashedAsset(get, /src="(\/_next\/static\/[^"]+\.js[^"]*)"/);
    },
    differs: 'next build writes a random build id and preview keys',
  },
  {
    name: 'pnpm',
    needs: ['node', 'npm-tool', 'npm'],
    ...app('pnpm-app'),
    kind: 'dynamic',
    log: [/pnpm@9/, /--frozen-lockfile/],
    visit: says(/./),
  },
  {
    name: 'yarn',
    needs: ['node', 'npm-tool', 'npm'],
    ...app('yarn-classic-app'),
    kind: 'dynamic',
    log: [/yarn@1/, /--frozen-lockfile/],
    visit: says(/./),
  },
  {
    name: 'fastapi',
    needs: ['python3', 'pypi'],
    ...app('fastapi-requirements'),
    kind: 'dynamic',
    log: [/pip install/, /Successfully installed.*fastapi/],
    visit: says(/./),
  },
  {
    name: 'flask',
    needs: ['python3', 'pypi'],
    ...app('flask-pyproject'),
    kind: 'dynamic',
    log: [/gunicorn/, /Successfully installed/],
    visit: says(/./),
  },
  {
    name: 'uv',
    needs: ['python3', 'pypi'],
    ...app('python-uv'),
    kind: 'dynamic',
    log: [/uv export/],
    visit: says(/./),
  },
  {
    name: 'poetry',
    needs: ['python3', 'pypi'],
    ...app('python-poetry'),
    kind: 'dynamic',
    log: [/versions that poetry locked/],
    visit: says(/./),
  },
  {
    name: 'go net/http',
    needs: ['go'],
    ...app('go-net-http'),
    kind: 'dynamic',
    log: [/go build/, /health: passed/],
    visit: says(/./),
  },
  {
    name: 'go chi',
    needs: ['go', 'go-modules'],
    ...app('go-chi'),
    kind: 'dynamic',
    log: [/go mod download/, /go build/],
    visit: says(/./),
  },
  {
    name: 'elixir',
    needs: ['elixir'],
    ...app('elixir-plug-less'),
    kind: 'dynamic',
    log: [/mix compile/],
    visit: says(/./),
  },
  {
    name: 'ruby',
    needs: ['ruby'],
    ...app('ruby-script'),
    kind: 'dynamic',
    log: [/health: passed/],
    visit: says(/./),
  },
  {
    name: 'php',
    needs: ['php'],
    ...app('php-plain'),
    kind: 'dynamic',
    log: [/health: passed/],
    visit: says(/./),
  },
  {
    name: 'php extensions',
    needs: ['php', 'php-mbstring'],
    source: () =>
      writeApp({
        'index.php': `<?php echo mb_strlen('grün'), ' letters, ', function_exists('ctype_alpha') ? 'ctype' : 'none';`,
      }),
    kind: 'dynamic',
    log: [/health: passed/],
    visit: says('4 letters, ctype'),
    host_settings: true,
  },
  {
    name: 'java',
    needs: ['java'],
    source: () => writeApp({ 'Main.java': JAVA_SERVER }),
    publish: { build_command: 'javac Main.java', run_command: 'java -Xshare:auto Main' },
    kind: 'dynamic',
    log: [/health: passed/],
    // Reads java.security, and net.properties for the proxy selector.
    visit: says('java with [1-9]\\d* providers'),
    host_settings: true,
  },
  {
    name: 'rust',
    needs: ['cargo'],
    ...app('rust-plain'),
    kind: 'dynamic',
    log: [/Compiling/, /health: passed/],
    visit: says(/./),
  },
  {
    name: 'node of another version',
    needs: ['node', 'npm-tool', 'npm'],
    ...app('node-exact-version'),
    kind: 'dynamic',
    log: [/asks for Node/, /health: passed/],
    visit: says(/./),
  },
  {
    name: 'explicit commands',
    needs: ['node'],
    source: () =>
      writeApp({
        'app.txt': 'made by hand',
        'serve.mjs': `import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
createServer((q, s) => s.end(readFileSync('made/page.txt'))).listen(process.env.PORT);`,
      }),
    publish: { build_command: 'mkdir made && cp app.txt made/page.txt', run_command: 'node serve.mjs' },
    kind: 'dynamic',
    log: [/mode +explicit/, /outranks everything/],
    visit: says('made by hand'),
    small: true,
  },
  {
    name: 'bound to 127.0.0.1',
    needs: ['node'],
    source: () => listensOn('127.0.0.1'),
    kind: 'dynamic',
    log: [/health: passed/],
    visit: says('on 127.0.0.1'),
  },
  {
    name: 'bound to ::1',
    needs: ['node', 'ipv6'],
    source: () => listensOn('::1'),
    kind: 'dynamic',
    log: [/health: passed/],
    visit: says('on ::1'),
    small: true,
  },
  {
    name: 'python http.server',
    needs: ['python3'],
    source: () =>
      writeApp({
        'main.py': `import os
from http.server import BaseHTTPRequestHandler, HTTPServer
class App(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b'plain python')
HTTPServer(('', int(os.environ['PORT'])), App).serve_forever()
`,
      }),
    kind: 'dynamic',
    log: [/main\.py/, /health: passed/],
    visit: says('plain python'),
    small: true,
  },
];

const only = process.env.KILN_APPS?.split(',');
const missing = await missingNeeds();

function skipped(of: Case): string | false {
  if (only && !only.includes(of.name)) return 'not among KILN_APPS';
  const need = of.needs.find((one) => missing.has(one));
  return need ? missing.get(need)! : false;
}

async function publish(kiln: Kiln, of: Case, dir: string | null, options: Record<string, unknown>) {
  const pending = await kiln.publish(dir, { ...of.publish, ...options, wait: 0 });
  const { deployment } = pending;
  const version = await kiln.settled(deployment.id, pending.version.id, PUBLISH_MS);
  const log = (await kiln.ask('GET', `/deployments/${deployment.id}/builds/${version.build_id}/logs`)).logs;
  assert.equal(version.state, 'ready', `${JSON.stringify(version.failure, null, 2)}\n${log.slice(-4000)}`);
  return { deployment, version, log };
}

/** Published, visited, published again without a build and with one. */
async function prove(kiln: Kiln, of: Case): Promise<void> {
  const dir = await of.source();
  try {
    const first = await publish(kiln, of, dir, {});
    assert.equal(first.version.kind, of.kind);
    for (const line of of.log)
      assert.ok(line.test(first.log), `${line} is not in the build log:\n${first.log.slice(-4000)}`);
    assert.doesNotMatch(
      first.log,
      /Unknown (user|env) config/,
      "warnings about settings that are not the user's",
    );
    const get = (at: string) => kiln.get(first.deployment, at);
    await of.visit(get);

    const deployment_id = first.deployment.id;
    const same = await publish(kiln, of, dir, { deployment_id });
    assert.equal(same.version.reused_release, true, 'the same source again: the stored release');
    assert.equal(same.version.artifact_sha256, first.version.artifact_sha256);
    await of.visit(get);

    const rebuilt = await publish(kiln, of, dir, { deployment_id, reuse: false });
    assert.equal(rebuilt.version.reused_release, false);
    await of.visit(get);
    if (!of.differs) assert.equal(rebuilt.version.artifact_sha256, first.version.artifact_sha256, 'I11');
    await removed(kiln, deployment_id);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

/** Its instances would go on using memory that the next app needs. */
async function removed(kiln: Kiln, deployment_id: string): Promise<Json> {
  return kiln.ask('DELETE', `/deployments/${deployment_id}`);
}

function suite(name: string, flags: Flags, cases: Case[], skip: string | false = false): void {
  describe(name, { skip, concurrency: 2 }, () => {
    let kiln: Kiln;
    before(async () => {
      kiln = await startKiln({ 'startup-limit': '60', ...flags });
    });
    after(() => kiln.close());
    // Two at a time: much of a build is waiting for a registry.
    for (const of of cases) test(of.name, { skip: skipped(of) }, () => prove(kiln, of));
  });
}

test('what src/build/fixtures.system.test.ts leaves to this file is among the apps', () => {
  const here = CASES.map((of) => of.fixture);
  for (const name of buildable.published) assert.ok(here.includes(name), name);
});

suite('apps through the engine', {}, CASES);
suite(
  'apps through the engine, as plain processes',
  { isolation: 'process' },
  CASES.filter((of) => of.small),
);
suite(
  'apps through the engine, under bubblewrap',
  { isolation: 'bubblewrap' },
  CASES.filter((of) => of.host_settings),
  findProgram('bwrap', process.env.PATH) === null && 'bwrap is not installed',
);
