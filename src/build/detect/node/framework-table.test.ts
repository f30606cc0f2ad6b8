/**
 * framework-table.json is @netlify/build-info's table of static site tools as plain data. Its own detection is
 * asynchronous and walks a file system of its own; the table is what we need. To take over a newer version:
 * `KILN_WRITE_FIXTURES=1 node --test src/build/detect/node/framework-table.test.ts`.
 */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';

const FILE = new URL('./framework-table.json', import.meta.url);

interface Framework {
  id: string;
  npmDependencies: string[];
  build: { command: string; directory?: string };
}

test('the framework table is the one of the installed @netlify/build-info', async () => {
  const entry = import.meta.resolve('@netlify/build-info');
  const { frameworks } = (await import(new URL('./frameworks/index.js', entry).href)) as {
    frameworks: (new (project: object) => Framework)[];
  };
  const table: Record<string, { packages: string[]; command: string | null; output: string | null }> = {};
  for (const Class of frameworks) {
    const one = new Class({});
    if (one.npmDependencies.length === 0) continue;
    table[one.id] = {
      packages: one.npmDependencies,
      command: one.build.command.startsWith('npm ') ? null : one.build.command,
      output: one.build.directory?.replace(/\/+$/, '') ?? null,
    };
  }
  if (process.env.KILN_WRITE_FIXTURES) writeFileSync(FILE, `${JSON.stringify(table, null, 2)}\n`);
  assert.deepEqual(JSON.parse(readFileSync(FILE, 'utf8')), table);
});
