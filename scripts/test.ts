/**
 * Runs the tests with Node's own runner: `*.test.ts` (no root, no network, nothing installed), and with --system also
 * `*.system.test.ts`. Further arguments are file name filters: `npm test -- engine`.
 */
import { globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';

/** Each takes a good part of the whole: one that began last would keep one processor waiting. */
const LONGEST = [
  ...['test/crash-many.system', 'test/images.system', 'test/ecosystems.system', 'src/build/fixtures.system'],
  ...['test/api.system', 'src/isolation/microvm/qemu/runtime.system'],
  ...['test/crash', 'test/switching', 'test/instances', 'test/failures', 'src/api/file-swap'],
].map((name) => `${name}.test.ts`);
const rank = (file: string) => (LONGEST.includes(file) ? LONGEST.indexOf(file) : LONGEST.length);
/**
 * Files at a time. Many wait (for what they started, a registry, a limit): with as many as processors, on two, these
 * are idle for more than a third of the time.
 */
const AT_A_TIME = 3;

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
// There is one Docker daemon at a time: of two files that need one, side by side, one would wait for the other.
const for_docker = files.filter((file) => readFileSync(file, 'utf8').includes('startDocker('));
const others = files.filter((file) => !for_docker.includes(file));
const one_by_one = for_docker.length > 0 ? told(for_docker, 1) : null;
if (others.length > 0)
  for await (const text of told(others, one_by_one ? AT_A_TIME - 1 : AT_A_TIME)) process.stdout.write(text);
if (one_by_one) {
  console.log('\nThose that need a Docker daemon, which ran beside the others one by one:\n');
  for await (const text of one_by_one) process.stdout.write(text);
}

/** Runs them; what there is to say comes as text. A test that hangs is ended: some hold real builds, each with a limit of its own. */
function told(files: string[], concurrency: number): AsyncIterable<string> {
  const timeout = (system ? 60 : 10) * 60_000;
  const report = run({ files, concurrency, timeout }).on('test:fail', ({ todo }) => {
    if (todo === undefined || todo === false) process.exitCode = 1;
  });
  return report.compose(new spec());
}
