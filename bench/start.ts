/**
 * (d) From starting `kiln up` to its ready line: the very first start (an empty data folder, and no compiled modules kept
 * from an earlier one), and later starts of the same data folder. What it took by then is in the engine's log.
 */
import { spawn } from 'node:child_process';
import { readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { flagsFor, tempDir } from '../test/support/folders.ts';
import { type Distribution, distribution, show } from './report.ts';

const FIRST = 3;
const LATER = 5;
const KILN = path.join(import.meta.dirname, '..', 'bin', 'kiln.mjs');

/** Milliseconds since the process was started, by phase; phases overlap, so they do not add up. */
type Phases = Record<string, number>;

export async function run(): Promise<Record<string, Distribution>> {
  const first: Phases[] = [];
  const later: Phases[] = [];
  for (let n = 0; n < FIRST; n++) {
    const data_dir = await tempDir('bench');
    first.push(await start(data_dir));
    if (n === FIRST - 1) for (let m = 0; m < LATER; m++) later.push(await start(data_dir));
    await rm(data_dir, { recursive: true, force: true });
  }
  const results = {
    ...distributions('first start of a data folder', first),
    ...distributions('later start', later),
  };
  show('engine start, process to ready (ms)', results);
  return results;
}

function distributions(what: string, starts: Phases[]): Record<string, Distribution> {
  const names = Object.keys(starts[0]!).sort((a, b) => starts[0]![a]! - starts[0]![b]!);
  return Object.fromEntries(
    names.map((name) => [`${what}: ${name}`, distribution(starts.map((phases) => phases[name]!))]),
  );
}

async function start(data_dir: string): Promise<Phases> {
  const flags = Object.entries({ ...flagsFor(data_dir), 'log-level': 'info' });
  const args = flags.flatMap(([name, value]) => [`--${name}`, value]);
  const started = performance.now();
  const child = spawn(process.execPath, [KILN, 'up', '--json', ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, XDG_CACHE_HOME: path.join(data_dir, 'bench-cache') },
  });
  await new Promise<void>((resolve, reject) => {
    createInterface({ input: child.stdout }).on('line', (line) => {
      if (JSON.parse(line).event === 'ready') resolve();
    });
    child.once('exit', (code) => reject(new Error(`the engine ended with ${code}`)));
  });
  const ready_ms = performance.now() - started;
  child.removeAllListeners('exit');
  const gone = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  await gone;
  const log = await readFile(path.join(data_dir, 'logs', 'engine.log'), 'utf8');
  const { after_ms } = JSON.parse(
    log
      .trim()
      .split('\n')
      .findLast((line) => line.includes('"after_ms"'))!,
  );
  // The log counts from when the engine began; before that the process and its command line were loaded.
  const begun = ready_ms - after_ms.ready;
  const phases = Object.entries(after_ms as Phases).map(([name, ms]) => [name, begun + ms]);
  return { begun, ...Object.fromEntries(phases), ready: ready_ms };
}

if (import.meta.main) await run();
