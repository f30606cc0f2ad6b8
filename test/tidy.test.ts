/** Style is a test: import direction, lengths, who reads the environment, names, dead files. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';

const root = path.join(import.meta.dirname, '..');
const tracked = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], {
  cwd: root,
  encoding: 'utf8',
})
  .split('\n')
  .filter((file) => file !== '' && existsSync(path.join(root, file)));
const sources = tracked.filter(
  (file) =>
    /^(src|test|scripts|bench)\/.*\.ts$/.test(file) &&
    !file.includes('fixtures/') &&
    file !== 'src/client/schema.d.ts', // generated
);
const read = (file: string) => readFileSync(path.join(root, file), 'utf8');
/** Suites that drivers and databases must pass: tests, although they are not named so. */
const isTest = (file: string) =>
  file.endsWith('.test.ts') ||
  /^test\/|^src\/(isolation|store)\/(objects\/)?contract[./]|\/[\w.-]*fixtures?\.ts$/.test(file);
const product = sources.filter((file) => file.startsWith('src/') && !isTest(file));

/** What each room may import, besides itself. `main.ts`, `server.ts` and `config.ts` at the top may import anything. */
const MAY_IMPORT: Record<string, readonly string[]> = {
  domain: [],
  store: ['domain', 'source'],
  source: ['domain', 'store/objects'],
  build: ['domain'],
  isolation: ['domain'],
  health: ['domain', 'isolation'],
  release: ['domain', 'source', 'store/objects', 'isolation/image.ts'],
  edge: ['domain', 'release', 'health', 'store/route.ts', 'store/objects'],
  pipeline: ['domain', 'source', 'build', 'isolation', 'release', 'health', 'store'],
  engine: ['domain', 'source', 'isolation', 'release', 'health', 'store', 'pipeline'],
  mcp: ['domain', 'api/contract'],
  api: ['domain', 'engine', 'store', 'source', 'mcp'],
  client: [],
  cli: [
    'client',
    'domain',
    'api/contract',
    'source',
    'build',
    'config.ts',
    'engine/folders.ts',
    'engine/engine.ts',
    'isolation/microvm/builder-image',
    'server.ts',
    'mcp',
  ],
};

test('imports point one way', () => {
  const wrong: string[] = [];
  for (const file of product) {
    const room = file.split('/')[1]!;
    if (room.endsWith('.ts')) continue;
    const allowed = MAY_IMPORT[room];
    assert.ok(
      allowed,
      `the folder src/${room} is not in the picture: add it to MAY_IMPORT and ARCHITECTURE.md`,
    );
    for (const [, target] of read(file).matchAll(/(?:from|import\() ?'(\.[^']+)'/g)) {
      const to = path.posix.relative('src', path.posix.join(path.posix.dirname(file), target!));
      if (to.startsWith(`${room}/`)) continue;
      if (!allowed.some((prefix) => to === prefix || to.startsWith(`${prefix}/`)))
        wrong.push(`${file} → src/${to}`);
    }
  }
  assert.deepEqual(wrong, []);
});

test('transactions are begun by `transact`, which tries again what the database ended', () => {
  const beginners = product.filter((file) => /\.transaction\(\)/.test(read(file)));
  assert.deepEqual(beginners, ['src/store/transact.ts']);
});

test('files have at most 400 lines, functions at most 70', () => {
  const long: string[] = [];
  for (const file of sources) {
    const lines = read(file).split('\n');
    if (lines.length > 401) long.push(`${file}: ${lines.length} lines`);
    if (isTest(file)) continue;
    for (const { name, length } of functionsOf(lines))
      if (length > 70) long.push(`${file}: ${name} has ${length} lines`);
  }
  assert.deepEqual(long, []);
});

/** Formatted code closes a function with a brace at the indentation it began with. */
function functionsOf(lines: string[]): { name: string; length: number }[] {
  const found: { name: string; length: number }[] = [];
  const start =
    /^(\s*)(?:export )?(?:default )?(?:async )?(?:static )?(?:async )?(?:function\*? (\w+)|(?:const (\w+) = (?:async )?\(.*=> \{$)|(#?\w+)\(.*\{$)/;
  for (const [at, line] of lines.entries()) {
    const match = start.exec(line);
    if (!match || /^\s*(if|for|while|switch|catch|return|describe|test|it|suite)\b/.test(line)) continue;
    const end = lines.findIndex((l, i) => i > at && l.startsWith(`${match[1]}}`));
    if (end > 0) found.push({ name: match[2] ?? match[3] ?? match[4] ?? '?', length: end - at + 1 });
  }
  return found;
}

test('the environment is read in one place', () => {
  const readers = product.filter((file) => /process\.env\b/.test(read(file)));
  assert.deepEqual(
    readers.filter((file) => !['src/main.ts', 'src/config.ts'].includes(file)),
    [],
  );
});

test('no drawers, no leftovers, no machine paths', () => {
  const wrong: string[] = [];
  for (const file of tracked) {
    if (/(^|\/)(util|utils|helpers|misc|common)(\/|\.ts$)/.test(file)) wrong.push(`${file}: a drawer`);
    if (
      !/\.(ts|mjs|js|md|json|toml|sh)$/.test(file) ||
      file.includes('fixtures/') ||
      file === 'package-lock.json'
    )
      continue;
    const text = read(file);
    if (/\b(TODO|FIXME|XXX)\b/.test(text) && file !== 'test/tidy.test.ts') wrong.push(`${file}: a leftover`);
    if (/(?<![\w.])\/(root|home)\/[a-z]|\/work\/(main|shared)/.test(text) && file !== 'test/tidy.test.ts')
      wrong.push(`${file}: a path of one machine`);
  }
  assert.deepEqual(wrong, []);
});

test('every file of the product is used', () => {
  const imported = new Set<string>();
  for (const file of [...sources, 'package.json', 'bin/kiln.mjs'])
    for (const [, target] of read(file).matchAll(/['"](\.{0,2}\/?[\w./-]+\.ts)['"]/g))
      imported.add(path.posix.normalize(path.posix.join(path.posix.dirname(file), target!)));
  const scripts = read('package.json') + read('bin/kiln.mjs');
  const unused = product.filter(
    (file) => !imported.has(file) && !scripts.includes(file) && file !== 'src/main.ts',
  );
  assert.deepEqual(unused, []);
});
