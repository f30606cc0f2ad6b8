/** A static release never holds source: by plan, for every fixture and for sources made to trap it. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { MANIFESTS } from './detect/static.ts';
import { diskFiles, memoryFiles } from './files.ts';
import { makePlan } from './plan.ts';

const APPS = new URL('../../test/fixtures/apps/', import.meta.url);
/** What the packager itself leaves out of a site, wherever it is: dot files, settings, packages. */
const LEFT_OUT = /^(?!\.well-known$)\.|^kiln\.(?:toml|json)$|^node_modules$/;
const SOURCE = /^package\.json$|^requirements.*\.txt$|\.(?:py|rb|php|go|exs?|java|kt|rs|cs)$/;

test('no fixture serves a manifest, server code or a private file', () => {
  let sites = 0;
  for (const name of readdirSync(APPS)) {
    const files = diskFiles(new URL(name, APPS).pathname);
    const result = makePlan(files, { overrides: {} });
    if (!result.ok || result.plan.kind !== 'static') continue;
    sites++;
    const { output_path, build } = result.plan;
    const names = files.list(output_path).map((entry) => entry.name);
    assert.deepEqual(
      names.filter((file) => SOURCE.test(file)),
      [],
      name,
    );
    if (output_path === '.') assert.deepEqual(build, [], `${name}: a build writes into a folder of its own`);
    assert.ok(output_path === '.' || !LEFT_OUT.test(output_path.split('/')[0]!) || build.length > 0, name);
  }
  assert.ok(sites > 30, `${sites} sites`);
});

const path = fc.constantFrom(
  ...[...MANIFESTS, 'server.py', 'app.rb', 'main.go', 'index.php', 'Main.java', 'App.csproj', 'Dockerfile'],
  ...[
    '.env',
    '.git/config',
    'kiln.json',
    'src/index.ts',
    'server.js',
    'dist/.env',
    'public/app.js',
    'README.md',
  ],
);
const contents = fc.constantFrom(
  '{}',
  '',
  'x = 1\n',
  '{"scripts":{"build":"make"}}',
  '{"dependencies":{"vite":"7"}}',
);
const overrides = fc.record(
  {
    kind: fc.constantFrom('static' as const, 'auto' as const),
    build_command: fc.constant('make'),
    spa: fc.boolean(),
    entrypoint: fc.constantFrom('index.html', 'public/index.html'),
  },
  { requiredKeys: [] },
);

test('the root is never served while a manifest or server code is in it', () => {
  let served = 0;
  fc.assert(
    fc.property(
      fc.dictionary(path, contents, { maxKeys: 6, noNullPrototype: true }),
      overrides,
      (files, asked) => {
        const source = { 'index.html': '<html></html>', 'public/index.html': '<html></html>', ...files };
        const result = makePlan(memoryFiles(source), { overrides: asked });
        if (!result.ok || result.plan.kind !== 'static' || result.plan.output_path !== '.') return;
        served++;
        const top = Object.keys(files).filter((file) => !file.includes('/'));
        assert.deepEqual(
          top.filter((file) => MANIFESTS.includes(file) || SOURCE.test(file)),
          [],
          JSON.stringify(result.plan),
        );
      },
    ),
    { numRuns: 3000 },
  );
  assert.ok(served > 20, `the root was served ${served} times`);
});
