/** Sources made to break the planner: it must answer, in bounded time, whatever it is given. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { explainPlan, explainRefusal } from './explain.ts';
import { diskFiles, memoryFiles } from './files.ts';
import { makePlan } from './plan.ts';

/** Every file some detector reads. */
const NAMES =
  `package.json pnpm-workspace.yaml package-lock.json yarn.lock pnpm-lock.yaml bun.lock .yarnrc.yml tsconfig.json
  .nvmrc .tool-versions mise.toml angular.json nest-cli.json next.config.js vite.config.ts svelte.config.js astro.config.mjs
  nx.json apps/web/project.json adapters/static/vite.config.ts settings.gradle build.gradle web/pom.xml .sdkmanrc Gemfile.lock
  requirements.txt pyproject.toml uv.lock poetry.lock Pipfile Pipfile.lock manage.py main.py app.py go.mod go.work main.go
  cmd/server/main.go mix.exs Gemfile config.ru composer.json index.php pom.xml build.gradle.kts Cargo.toml src/main.rs
  crates/a/Cargo.toml App.csproj global.json deno.json main.ts Procfile start.sh index.html public/index.html Staticfile
  Dockerfile kiln.toml kiln.json index.js server.js apps/web/package.json apps/api/package.json`.split(/\s+/);

/** Pieces that lead into the detectors' branches, so that more than the parsers is tried. */
const PIECES = [
  '{"scripts":{"start":"node index.js","build":"vite build"},"dependencies":{"vite":"1","next":"1","express":"1"}}',
  '{"workspaces":["apps/*","**","../*","!apps/web","a".repeat]}',
  '{"workspaces":["**/**/**","*"],"packageManager":"pnpm@9.0.0"}',
  '{"scripts":[],"dependencies":"x","engines":7,"workspaces":{"packages":[1,null]},"__proto__":{"a":1}}',
  '{"projects":{"a":{"architect":{"build":{"builder":"x:application","options":{"outputPath":{"base":"../.."}}}}}}}',
  '[project]\ndependencies = ["flask", 7]\n[tool.poetry.dependencies]\nflask = { git = "x", extras = [1] }\n',
  '[workspace]\nmembers = ["crates/*", "../x", "*"]\n[[bin]]\nname = "a"\n',
  'flask\n-r requirements.txt\n-r ../../etc/passwd\n-e .\n',
  'app = FastAPI()\napp = Flask(__name__)\nos.environ.setdefault("DJANGO_SETTINGS_MODULE", "a.b")\n',
  'packages:\n  - "apps/*"\n  - &a [*a]\n',
  'module x\ngo 1.22\nrequire github.com/gin-gonic/gin v1\n',
  'package main\nfunc main() { http.ListenAndServe(":99999", nil) }\n',
  'web: $(rm -rf /) `x`\n',
  'gem \'rails\'\n<Project Sdk="Microsoft.NET.Sdk.Web">\nroot: ../../etc\n',
  'FROM x\nEXPOSE 99999\n',
  'FROM x AS a\nENV A=$A$A$A\nFROM a\nEXPOSE $A $B\nHEALTHCHECK CMD curl localhost:$A/x\nRUN <<E\n',
  '<project><modules><module>web</module><module>../..</module></modules><packaging>war</packaging>',
  "include ':a:b', '../..', 'web'\nplugins { id 'application' }\n",
  "gem 'jekyll'\nRUBY VERSION\n   ruby 3.4.1p0\n",
  '{"projectType":"application","targets":{"build":{"executor":"@nx/node:x","options":{"outputPath":"../..","main":"/x"}}}}',
  '{"name":"@a/b","nx":{"targets":{"build":{"executor":7},"serve":[]}},"devDependencies":{"@builder.io/qwik-city":"1"}}',
  '{"scripts":{"start":"tsc && tsc && tsc && npm run build && node ."},"dependencies":{"hono":"4","fastify-cli":"1"}}',
  'run_command = "x"\nroot = "apps/web"\n',
  '{"root":"apps/api","output_path":"..","port":-1}',
  "export default { output: 'export', outDir: '../../x', adapter: node() }",
  '{'.repeat(5000),
  '['.repeat(5000),
  '"\\"'.repeat(5000),
  '/*'.repeat(5000),
  '\u0000\uFFFF\uFEFF',
  '',
];

const text = fc.oneof(
  { weight: 5, arbitrary: fc.constantFrom(...PIECES) },
  { weight: 2, arbitrary: fc.json() },
  { weight: 1, arbitrary: fc.string({ unit: 'binary', maxLength: 300 }) },
  {
    weight: 2,
    arbitrary: fc
      .tuple(fc.constantFrom(...PIECES), fc.nat(200))
      .map(([piece, at]) => piece.slice(0, at) + piece.slice(at + 1)),
  },
);
const source = fc.dictionary(fc.constantFrom(...NAMES), text, { maxKeys: 12, noNullPrototype: true });
const overrides = fc.record(
  {
    root: fc.constantFrom('.', 'apps/web', '../x', 'nowhere'),
    output_path: fc.constantFrom('.', 'dist', 'public', '/x'),
    build_command: fc.constantFrom('make', ''),
    run_command: fc.constantFrom('serve', ''),
    kind: fc.constantFrom('auto' as const, 'static' as const, 'dynamic' as const),
    entrypoint: fc.constantFrom('main.py', 'cmd/server', 'public/index.html', '../x'),
  },
  { requiredKeys: [] },
);

/** The time on the clock is also that of whatever else the machine does. */
function processorMs(since: NodeJS.CpuUsage): number {
  const { user, system } = process.threadCpuUsage(since);
  return (user + system) / 1000;
}

test('any source has a plan or a refusal, soon, and the same one again', () => {
  fc.assert(
    fc.property(source, overrides, (contents, asked) => {
      const started = process.threadCpuUsage();
      const result = makePlan(memoryFiles(contents), { overrides: asked });
      const took_ms = processorMs(started);
      assert.ok(took_ms < 500, `took ${took_ms} ms`);
      assert.deepEqual(makePlan(memoryFiles(contents), { overrides: asked }), result);
      if (!result.ok) {
        assert.ok(result.refusal.message && result.refusal.next_step);
        explainRefusal(result.refusal);
        return;
      }
      const { plan } = result;
      explainPlan(plan);
      assert.equal(plan.kind === 'static', plan.start === null && plan.mode !== 'dockerfile');
      assert.ok(plan.kind === 'dynamic' || plan.port === null);
      for (const path of [plan.root, plan.output_path]) assert.ok(!/^\/|(^|\/)\.\.(\/|$)/.test(path), path);
      assert.ok(plan.port === null || (plan.port >= 1 && plan.port <= 65_535));
    }),
    { numRuns: 1500 },
  );
});

test('large hostile manifests cost no more than reading them', () => {
  const large = 1024 * 1024;
  const fill = (piece: string) => piece.repeat(Math.ceil(large / piece.length)).slice(0, large);
  for (const piece of [
    '{"a":',
    '[',
    '"\\"',
    '/*',
    '- &a [',
    'a: *a\n',
    '[a.b]\n',
    'a="',
    '=\n',
    'port = 1 ',
    'x'.repeat(5000),
    'FastAPI(',
  ]) {
    for (const name of [
      'package.json',
      'pnpm-workspace.yaml',
      'pyproject.toml',
      'deno.json',
      'main.py',
      'server.js',
      'Procfile',
      'mix.exs',
    ]) {
      const started = process.threadCpuUsage();
      makePlan(memoryFiles({ 'package.json': '{}', 'main.go': 'package main', [name]: fill(piece) }), {
        overrides: {},
      });
      const took_ms = processorMs(started);
      assert.ok(took_ms < 1000, `${name} full of ${piece.slice(0, 20)} took ${took_ms} ms`);
    }
  }
});

test('ten thousand files, deep folders and circles of links take little time', () => {
  const root = mkdtempSync(join(tmpdir(), 'kiln-hostile-'));
  try {
    for (let dir = 0; dir < 100; dir++) {
      mkdirSync(join(root, `pages${dir}`));
      for (let file = 0; file < 100; file++)
        writeFileSync(join(root, `pages${dir}`, `page${file}.py`), 'x = 1\n');
      symlinkSync('..', join(root, `pages${dir}`, 'up'));
    }
    mkdirSync(join(root, 'd/'.repeat(200)), { recursive: true });
    writeFileSync(join(root, 'requirements.txt'), 'flask==3.1.2\n');
    writeFileSync(join(root, 'package.json'), '{"workspaces":["**"]}');
    const times: number[] = [];
    for (let round = 0; round < 5; round++) {
      const before = process.cpuUsage();
      makePlan(diskFiles(root), { overrides: {} });
      const { user, system } = process.cpuUsage(before);
      times.push((user + system) / 1000);
    }
    // 30 ms on the machine this was written on. Of the processor's time: others use the machine too.
    assert.ok(Math.min(...times) < 100, `took ${times.map(Math.round).join(', ')} ms`);
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
});
