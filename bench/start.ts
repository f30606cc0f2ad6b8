/** (d) From starting the process to the engine being ready: the very first start, and later ones of the same data folder. */
import { spawn } from 'node:child_process';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { flagsFor, tempDir } from '../test/support/folders.ts';
import { type Distribution, distribution, show } from './report.ts';

const FIRST = 3;
const LATER = 5;

export async function run(): Promise<Record<string, Distribution>> {
  const first: number[] = [];
  const later: number[] = [];
  for (let n = 0; n < FIRST; n++) {
    const data_dir = await tempDir('bench');
    first.push(await start(data_dir));
    if (n === FIRST - 1) for (let m = 0; m < LATER; m++) later.push(await start(data_dir));
    await rm(data_dir, { recursive: true, force: true });
  }
  const results = {
    'first start of a data folder, process to ready (ms)': distribution(first),
    'later start, process to ready (ms)': distribution(later),
  };
  show('engine start', results);
  return results;
}

async function start(data_dir: string): Promise<number> {
  const started = performance.now();
  const script = path.join(import.meta.dirname, '..', 'test', 'support', 'engine-process.ts');
  const child = spawn(process.execPath, [script, JSON.stringify(flagsFor(data_dir))], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  await new Promise<void>((resolve, reject) => {
    createInterface({ input: child.stdout }).once('line', () => resolve());
    child.once('exit', (code) => reject(new Error(`the engine ended with ${code}`)));
  });
  const ready = performance.now() - started;
  child.removeAllListeners('exit');
  const gone = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  await gone;
  return ready;
}

if (import.meta.main) await run();
