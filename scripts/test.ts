/**
 * Runs the tests with Node's own runner: `*.test.ts` (no root, no network, nothing installed), and with --system also
 * `*.system.test.ts`. Further arguments are file name filters: `npm test -- engine`.
 */
import { globSync } from 'node:fs';
import path from 'node:path';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';

/**
 * What begins first, in this order; the rest follows by name. A long file that began last would keep one processor
 * waiting. Those that need a Docker daemon, of which there is one at a time, follow each other beside the longest:
 * side by side one would wait for the other.
 */
const FIRST = [
  ...['test/crash-many.', 'src/isolation/docker', 'test/images.'],
  ...['test/ecosystems.', 'src/build/fixtures.system.', 'test/api.'],
  ...['test/crash.', 'test/switching.', 'test/instances.', 'test/failures.', 'src/api/file-swap.'],
];
const rank = (file: string) => FIRST.findIndex((start) => file.startsWith(start)) + 1 || FIRST.length + 1;

const args = process.argv.slice(2);
const system = args.includes('--system');
const filters = args.filter((arg) => !arg.startsWith('--'));
const all = globSync(['src/**/*.test.ts', 'test/**/*.test.ts', 'scripts/**/*.test.ts']).sort();
const files = all
  .filter((file) => !file.includes('fixtures/'))
  .filter((file) => file.endsWith('.system.test.ts') === system)
  .filter((file) => filters.length === 0 || filters.some((filter) => file.includes(filter)))
  .sort((a, b) => rank(a) - rank(b));
const left_out = all.filter((file) => file.endsWith('.system.test.ts') !== system).length;
if (!system && left_out > 0) console.log(`${left_out} system test files are left to \`npm run test:system\``);
if (files.length === 0) {
  console.error(`no test file matches ${filters.join(', ')}`);
  process.exit(1);
}
// Files and the engines they start load the same modules again and again: they are kept as they are once their types
// are stripped and they are compiled, as `kiln` itself keeps them. A quarter of the processor time of an engine's start.
process.env.NODE_COMPILE_CACHE ??= path.join(import.meta.dirname, '../node_modules/.kiln/compiled');
// Two files at a time: several start engines and databases, and small machines have two cores. A test that hangs is
// ended; the system tests hold a hundred crashes and real builds, each with a limit of its own.
const timeout = (system ? 60 : 10) * 60_000;
run({ files, concurrency: 2, timeout })
  .on('test:fail', ({ todo }) => {
    if (todo === undefined || todo === false) process.exitCode = 1;
  })
  .compose(new spec())
  .pipe(process.stdout);
