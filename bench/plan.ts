/**
 * How long a plan takes, and how much memory: for every fixture app, and for sources of 10,000 files. No build runs; the
 * files come from the page cache, since each source is planned once before it is measured. Alone: `node bench/plan.ts`.
 */
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { diskFiles } from '../src/build/files.ts';
import { makePlan } from '../src/build/plan.ts';

const APPS = new URL('../test/fixtures/apps/', import.meta.url).pathname;
const ROUNDS = 15;
const LARGE_FILES = 10_000;
const AIM_MS = 100;

export interface PlanTime {
  app: string;
  median_ms: number;
  max_ms: number;
  /** Processor time, which other work on the machine does not lengthen; median. */
  cpu_ms: number;
  /** Heap that one plan takes before anything is collected; median. */
  heap_bytes: number;
}

export interface PlanBench {
  bench: 'plan';
  cores: number;
  rounds: number;
  apps: number;
  median_ms: number;
  slowest: PlanTime[];
  /** Sources of 10,000 files. */
  large: PlanTime[];
  median_heap_bytes: number;
  peak_memory_bytes: number;
  aim: { large_at_most_ms: typeof AIM_MS };
}

/** Measures, prints a table and one line of JSON. */
export async function run(): Promise<PlanBench> {
  const dir = mkdtempSync(join(tmpdir(), 'kiln-bench-plan-'));
  try {
    const names = readdirSync(APPS).sort();
    const times = names.map((name) => measure(name, join(APPS, name)));
    const result: PlanBench = {
      bench: 'plan',
      cores: availableParallelism(),
      rounds: ROUNDS,
      apps: names.length,
      median_ms: median(times.map((one) => one.median_ms)),
      slowest: times.toSorted((a, b) => b.median_ms - a.median_ms).slice(0, 5),
      large: [
        measure(
          `flask, ${LARGE_FILES} files`,
          largeSource(join(dir, 'flask'), 'py', { 'requirements.txt': 'flask' }),
        ),
        measure(
          `workspace **, ${LARGE_FILES} files`,
          largeSource(join(dir, 'node'), 'ts', { 'package.json': '{"workspaces":["**"]}' }),
        ),
        measure(`site, ${LARGE_FILES} files`, largeSource(join(dir, 'site'), 'html', { 'index.html': '' })),
      ],
      median_heap_bytes: median(times.map((one) => one.heap_bytes)),
      peak_memory_bytes: process.resourceUsage().maxRSS * 1024,
      aim: { large_at_most_ms: AIM_MS },
    };
    console.table([...result.slowest, ...result.large]);
    console.log(JSON.stringify(result));
    return result;
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

function measure(app: string, dir: string): PlanTime {
  const times: number[] = [];
  const cpu: number[] = [];
  const heap: number[] = [];
  for (let round = 0; round <= ROUNDS; round++) {
    const before = process.memoryUsage().heapUsed;
    const cpu_before = process.cpuUsage();
    const started = performance.now();
    makePlan(diskFiles(dir), { overrides: {} });
    const { user, system } = process.cpuUsage(cpu_before);
    if (round > 0) {
      times.push(performance.now() - started);
      cpu.push((user + system) / 1000);
    }
    const taken = process.memoryUsage().heapUsed - before;
    if (taken > 0) heap.push(taken); // otherwise the collector ran
  }
  return {
    app,
    median_ms: median(times),
    max_ms: rounded(Math.max(...times)),
    cpu_ms: median(cpu),
    heap_bytes: Math.round(median(heap)),
  };
}

function largeSource(dir: string, extension: string, manifest: Record<string, string>): string {
  for (let folder = 0; folder < 100; folder++) {
    mkdirSync(join(dir, `part${folder}`), { recursive: true });
    for (let file = 0; file < LARGE_FILES / 100; file++)
      writeFileSync(join(dir, `part${folder}`, `file${file}.${extension}`), 'x = 1\n');
  }
  for (const [name, text] of Object.entries(manifest)) writeFileSync(join(dir, name), text);
  return dir;
}

const rounded = (ms: number): number => Math.round(ms * 100) / 100;
const median = (values: number[]): number =>
  rounded(values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0);

if (process.argv[1] === import.meta.filename) await run();
