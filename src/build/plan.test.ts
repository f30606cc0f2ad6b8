import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Plan, PlanOverrides } from '../domain/plan.ts';
import { explainPlan, explainRefusal } from './explain.ts';
import { memoryFiles } from './files.ts';
import { makePlan, type Refusal } from './plan.ts';

type Source = Record<string, string>;

function planOf(source: Source, overrides: PlanOverrides = {}, env: Record<string, string> = {}): Plan {
  const result = makePlan(memoryFiles(source), { overrides, env });
  assert.ok(result.ok, result.ok ? '' : result.refusal.message);
  return result.plan;
}

function refusalOf(source: Source, overrides: PlanOverrides = {}, env: Record<string, string> = {}): Refusal {
  const result = makePlan(memoryFiles(source), { overrides, env });
  assert.ok(!result.ok, 'a plan was made');
  return result.refusal;
}

const EXPRESS: Source = {
  'package.json': '{"scripts":{"start":"node index.js"},"dependencies":{"express":"5"}}',
  'index.js': "require('express')().listen(process.env.PORT)",
};
const VITE: Source = {
  'package.json': '{"scripts":{"build":"vite build"},"devDependencies":{"vite":"7"}}',
  'index.html': '<html></html>',
};

test('one order of precedence: request, environment, kiln.toml, kiln.json, detected', () => {
  const source = {
    ...EXPRESS,
    'kiln.json': '{"run_command":"four","port":4444,"health_check_path":"/four","startup_timeout_ms":4000}',
    'kiln.toml': 'run_command = "three"\nport = 3333\nhealth_check_path = "/three"\n',
  };
  const plan = planOf(source, { run_command: 'one' }, { KILN_RUN_COMMAND: 'two', KILN_PORT: '2222' });
  assert.match(plan.start!, /; one$/);
  assert.equal(plan.port, 2222);
  assert.equal(plan.health_check_path, '/three');
  assert.equal(plan.startup_timeout_ms, 4000);
  const { start, port, health_check_path, startup_timeout_ms, install } = plan.sources;
  assert.deepEqual(
    [start, port, health_check_path, startup_timeout_ms, install],
    ['request', 'environment', 'kiln.toml', 'kiln.json', 'detected'],
  );
});

test('commands outrank a Dockerfile, and a Dockerfile outranks detection', () => {
  const source = { ...EXPRESS, Dockerfile: 'FROM node\nEXPOSE 8080\n' };
  const image = planOf(source);
  assert.deepEqual([image.mode, image.kind, image.port, image.start], ['dockerfile', 'dynamic', 8080, null]);
  assert.deepEqual(image.also_matched[0], { rule: 'node', lost_because: 'A Dockerfile outranks detection.' });
  const commands = planOf(source, { run_command: 'node other.js' });
  assert.equal(commands.mode, 'explicit');
  assert.ok(commands.also_matched.some(({ rule }) => rule === 'dockerfile'));
  assert.equal(planOf({ 'deploy/Dockerfile': 'FROM scratch' }, { output_path: 'deploy' }).mode, 'dockerfile');
  const files = {
    'web.Dockerfile': 'FROM node AS web\nEXPOSE 3000\nCMD node web.js\nFROM node AS worker\nEXPOSE 4000\n',
    'kiln.toml': 'dockerfile = "web.Dockerfile"\ntarget = "web"\n',
  };
  const named = planOf(files);
  assert.deepEqual([named.mode, named.port], ['dockerfile', 3000]);
  assert.deepEqual(named.dockerfile, { file: 'web.Dockerfile', target: 'web' });
  const absent = makePlan(memoryFiles({ 'kiln.toml': 'dockerfile = "other"\n', 'index.html': '' }), {
    overrides: {},
  });
  assert.ok(!absent.ok && /dockerfile is other/.test(absent.refusal.message));
});

test('explicit commands keep what the detector knows about installing', () => {
  const plan = planOf(VITE, { build_command: 'vite build --mode x' });
  assert.deepEqual(plan.install, ['npm install --no-audit --no-fund']);
  assert.deepEqual(plan.build, ['export PATH="$PWD/node_modules/.bin:$PATH"; vite build --mode x']);
  assert.deepEqual([plan.kind, plan.output_path, plan.spa_fallback], ['static', 'dist', 'index.html']);
  const installed = planOf(VITE, { install_command: 'make deps', build_command: 'make' });
  assert.match(installed.install.join(), /; make deps$/);
});

test('a build command alone builds the server that was found; with output_path it builds a site', () => {
  assert.equal(planOf(EXPRESS, { build_command: 'make' }).kind, 'dynamic');
  const site = planOf(EXPRESS, { build_command: 'make', output_path: 'site' });
  assert.deepEqual([site.kind, site.output_path, site.start], ['static', 'site', null]);
});

test('a run command and a port make a server of anything', () => {
  const plan = planOf({ 'data.bin': 'x' }, { run_command: './serve', port: 3000 });
  assert.deepEqual([plan.mode, plan.kind, plan.start, plan.port], ['explicit', 'dynamic', './serve', 3000]);
  assert.equal(planOf(VITE, { run_command: 'node x' }).build.join(), 'npm run build');
});

test('source is never served where a build was expected', () => {
  const html = '<html></html>';
  for (const manifest of [
    'package.json',
    'requirements.txt',
    'go.mod',
    'mix.exs',
    'Gemfile',
    'composer.json',
  ]) {
    const source = { 'index.html': html, [manifest]: manifest.endsWith('.json') ? '{}' : 'x' };
    assert.equal(refusalOf(source, { kind: 'static' }).code, 'NO_PLAN', manifest);
    for (const overrides of [{}, { build_command: 'make' }]) {
      const result = makePlan(memoryFiles(source), { overrides });
      assert.ok(!result.ok || result.plan.kind === 'dynamic', manifest);
    }
  }
  assert.equal(refusalOf({ 'index.html': html, 'tool.py': 'print(1)' }).code, 'NO_PLAN');
  assert.equal(planOf({ 'index.html': html, 'script.js': 'x' }).mode, 'static');
});

test('a folder that is a site already is served when it is asked for', () => {
  const source = { ...EXPRESS, 'site/index.html': '<html></html>' };
  const plan = planOf(source, { output_path: 'site' });
  assert.deepEqual([plan.mode, plan.kind, plan.output_path], ['static', 'static', 'site']);
  assert.equal(planOf({ 'web/home.html': '' }, { entrypoint: 'web/home.html' }).output_path, 'web');
  assert.equal(planOf(source, { output_path: '/workspace/site' }).output_path, 'site');
});

test('kind is honoured, and refused where it contradicts the source', () => {
  assert.match(refusalOf(EXPRESS, { kind: 'static' }).message, /express/);
  assert.match(refusalOf(VITE, { kind: 'dynamic' }).next_step, /run_command/);
  assert.equal(refusalOf(VITE, { kind: 'static', run_command: 'x' }).code, 'INVALID_CONFIG');
  assert.equal(planOf({ 'a.html': '' }, { kind: 'static' }).kind, 'static');
});

test('a server beats a site beside it', () => {
  const plan = planOf({
    ...VITE,
    'requirements.txt': 'fastapi==1\nuvicorn==1\n',
    'main.py': 'app = FastAPI()\n',
  });
  assert.equal(plan.ecosystem, 'python');
  assert.deepEqual(plan.also_matched[0], {
    rule: 'node',
    lost_because: 'A server (python) beats a site beside it.',
  });
});

test('several apps are refused with their names, and root chooses', () => {
  const source = Object.fromEntries(
    ['shop', 'admin'].flatMap((dir) =>
      Object.entries(EXPRESS).map(([file, text]) => [`${dir}/${file}`, text]),
    ),
  );
  assert.match(refusalOf(source).next_step, /root = "admin"/);
  assert.equal(planOf(source, { root: 'shop' }).root, 'shop');
  assert.equal(
    planOf(source, { root: 'shop', output_path: 'pub', build_command: 'make' }).output_path,
    'shop/pub',
  );
  assert.match(refusalOf(source, { root: 'nowhere' }).message, /no such folder/);
});

test('an entrypoint says which ecosystem is meant, and has to be there', () => {
  const both = {
    ...EXPRESS,
    'requirements.txt': 'flask==3.1.2\ngunicorn==23.0.0\n',
    'web.py': 'app = Flask(__name__)\n',
    'serve.sh': 'exec ./serve\n',
  };
  const python = planOf(both, { entrypoint: 'web.py' });
  assert.deepEqual(
    [python.ecosystem, python.framework, python.sources.entrypoint],
    ['python', 'flask', 'request'],
  );
  assert.match(python.also_matched.find(({ rule }) => rule === 'node')!.lost_because, /entrypoint names/);
  assert.equal(planOf(both).ecosystem, 'node');
  assert.equal(planOf(both, { entrypoint: 'serve.sh' }).start, 'exec sh serve.sh');
  assert.equal(
    planOf(
      {
        'api/go.mod': 'module x\n',
        'api/cmd/a/main.go': 'package main\n',
        'api/cmd/b/main.go': 'package main\n',
      },
      { entrypoint: 'cmd/b/main.go' },
    ).root,
    'api',
  );
  const missing = makePlan(memoryFiles(both), { overrides: { entrypoint: 'dist/web.js' } });
  assert.ok(!missing.ok);
  assert.deepEqual(
    [missing.refusal.code, missing.refusal.message],
    ['INVALID_CONFIG', 'entrypoint is dist/web.js, but the source has no such file.'],
  );
});

test('wrong settings are refused with what was meant', () => {
  const keys = {
    build: 'build_command',
    start_command: 'run_command',
    buildCommand: 'build_command',
    output: 'output_path',
    prot: 'port',
  };
  for (const [key, meant] of Object.entries(keys)) {
    const refusal = refusalOf({ 'kiln.toml': `${key} = "x"\n` });
    assert.deepEqual(
      [refusal.code, refusal.next_step],
      ['INVALID_CONFIG', `Did you mean \`${meant}\`?`],
      key,
    );
  }
  const wrong: PlanOverrides[] = [
    { port: 0 },
    { port: 70_000 },
    { port: 1.5 },
    { root: '../x' },
    { output_path: '/etc' },
    { health_check_path: 'healthz' },
    { health_check_path: '/a b' },
    { run_command: 'a\0b' },
    { kind: 'other' as 'static' },
  ];
  for (const overrides of wrong)
    assert.equal(refusalOf(EXPRESS, overrides).code, 'INVALID_CONFIG', JSON.stringify(overrides));
  assert.match(refusalOf({ 'kiln.toml': 'a = 1\nb = = 2\n' }).message, /kiln\.toml:2/);
  assert.match(refusalOf({ 'kiln.json': '{"port": "x"}' }).message, /`port` in kiln\.json/);
  assert.match(
    planOf(EXPRESS, {}, { KILN_RUN_COMAND: 'x' }).warnings.join(),
    /did you mean KILN_RUN_COMMAND/,
  );
  assert.equal(planOf(EXPRESS, { run_command: '', build_command: '' }).mode, 'auto', 'empty means not given');
});

test('names from the source reach the shell as single words', () => {
  const nasty = "x'; rm -rf $HOME; echo '.js";
  const plan = planOf({
    'package.json': JSON.stringify({ main: nasty, dependencies: { express: '5' } }),
    [nasty]: 'app.listen(1)',
  });
  assert.match(plan.start!, /node 'x'\\''; rm -rf \$HOME; echo '\\''\.js'$/);
  const requirement = planOf({
    'pyproject.toml': '[project]\ndependencies = ["flask; $(touch x)"]\n',
    'app.py': 'app = Flask(__name__)\n',
  });
  assert.match(requirement.install.join(), / 'flask; \$\(touch x\)'$/);
});

test('the same source gives the same plan', () => {
  const reversed = Object.fromEntries(Object.entries(VITE).reverse());
  assert.deepEqual(planOf(VITE), planOf(reversed));
});

test('a plan and a refusal can be read', () => {
  const text = explainPlan(planOf(EXPRESS, { port: 3000 }));
  for (const part of [
    'package.json:1',
    'depends on express',
    'port     3000   (from the request)',
    'To change it',
  ]) {
    assert.ok(text.includes(part), `${part} in\n${text}`);
  }
  const refused = explainRefusal(refusalOf({ 'notes.txt': '', '\u001b[31m/x': '' }));
  assert.match(refused, /Looked for[\s\S]*package\.json[\s\S]*Found[\s\S]*notes\.txt/);
  assert.ok(!refused.includes('\u001b'), 'no control characters');
});

test('a Python framework that no file declares is said to be missing', () => {
  const app = 'from flask import Flask\napp = Flask(__name__)\n';
  const bare = planOf({ 'app.py': app });
  assert.ok(bare.warnings.some((line) => line.startsWith('Nothing installs flask: no file names it.')));
  const declared = planOf({ 'app.py': app, 'requirements.txt': 'flask==3.1.2\n' });
  assert.ok(!declared.warnings.some((line) => line.includes('Nothing installs')));
});
