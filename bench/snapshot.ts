/**
 * Snapshot of a workspace of 20,000 files and 160 MB, against `tar --sort=name | openssl dgst -sha256`.
 *
 * Ours does more: it also compresses, writes, flushes and stores. So there is a second reference that does the same with
 * tools: `tar | tee >(openssl) | zstd -1`, flushed. All read from the page cache (each is run once
 * before), and the runs alternate, so that a busy machine slows all. Aim: cold no slower than 1.2 times tar;
 * unchanged at least 10 times as fast as cold.
 *
 * Half of the bytes are text that compresses like code, half are like images and fonts, which do not compress. Sizes
 * have a long tail.
 */
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { promisify } from 'node:util';
import { type Snapshot, snapshotSource } from '../src/source/snapshot.ts';
import { RACY_MS } from '../src/source/snapshot-cache.ts';
import { fileObjectStore } from '../src/store/objects/files.ts';

const FILES = 20_000;
const TOTAL_BYTES = 160e6;
const ROUNDS = 7;

export interface SnapshotBench {
  bench: 'snapshot';
  files: number;
  size_bytes: number;
  stored_bytes: number;
  cores: number;
  rounds: number;
  /** Medians. Null when there is no GNU tar or openssl here. */
  tar_openssl_ms: number | null;
  /** Null also without bash or zstd. */
  tar_openssl_zstd_ms: number | null;
  cold_ms: number;
  unchanged_ms: number;
  cold_to_tar: number | null;
  cold_to_tar_zstd: number | null;
  cold_to_unchanged: number;
  tar_to_unchanged: number | null;
  aims: { cold_to_tar_at_most: 1.2; cold_to_unchanged_at_least: 10 };
}

/** Measures and prints. */
export async function run(): Promise<SnapshotBench> {
  const dir = await mkdtemp(join(tmpdir(), 'kiln-bench-snapshot-'));
  try {
    const root = join(dir, 'workspace');
    await makeWorkspace(root);
    await pause(RACY_MS + 100); // younger files are never taken as unchanged
    const result = await measure(dir, root);
    printTable(result);
    console.log(JSON.stringify(result));
    return result;
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

async function measure(dir: string, root: string): Promise<SnapshotBench> {
  const store = fileObjectStore(join(dir, 'objects'));
  const snap = (cache_file: string | null) =>
    snapshotSource({
      root,
      output_path: null,
      include_git: false,
      limits: { max_bytes: 2 * 1024 ** 3, max_files: 200_000 },
      store,
      cache_file,
      tmp_dir: join(dir, 'tmp'),
    });
  const works = (run: Promise<void>) =>
    run.then(
      () => true,
      () => false,
    );
  const has_tar = await works(tarOpenssl(root));
  const has_zstd = has_tar && (await works(tarOpensslZstd(root, dir)));
  const cache_file = join(dir, 'cache.json');
  const first = await snap(cache_file);
  const tar_ms: number[] = [];
  const tar_zstd_ms: number[] = [];
  const cold_ms: number[] = [];
  const unchanged_ms: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    if (has_tar) tar_ms.push(await timed(() => tarOpenssl(root)));
    if (has_zstd) tar_zstd_ms.push(await timed(() => tarOpensslZstd(root, dir)));
    await store.delete(first.key);
    cold_ms.push(await timed(() => expecting(snap(null), false)));
    unchanged_ms.push(await timed(() => expecting(snap(cache_file), true)));
  }
  const tar_openssl_ms = has_tar ? median(tar_ms) : null;
  const tar_openssl_zstd_ms = has_zstd ? median(tar_zstd_ms) : null;
  const cold = median(cold_ms);
  const unchanged = median(unchanged_ms);
  return {
    bench: 'snapshot',
    files: first.files,
    size_bytes: first.size_bytes,
    stored_bytes: first.stored_bytes,
    cores: availableParallelism(),
    rounds: ROUNDS,
    tar_openssl_ms,
    tar_openssl_zstd_ms,
    cold_ms: cold,
    unchanged_ms: unchanged,
    cold_to_tar: tar_openssl_ms && round2(cold / tar_openssl_ms),
    cold_to_tar_zstd: tar_openssl_zstd_ms && round2(cold / tar_openssl_zstd_ms),
    cold_to_unchanged: round2(cold / unchanged),
    tar_to_unchanged: tar_openssl_ms && round2(tar_openssl_ms / unchanged),
    aims: { cold_to_tar_at_most: 1.2, cold_to_unchanged_at_least: 10 },
  };
}

async function expecting(snapshot: Promise<Snapshot>, unchanged: boolean): Promise<void> {
  if ((await snapshot).unchanged !== unchanged) throw new Error(`expected unchanged: ${unchanged}`);
}

async function tarOpenssl(root: string): Promise<void> {
  await promisify(execFile)('sh', [
    '-c',
    'tar --sort=name -cf - -C "$1" . | openssl dgst -sha256',
    'sh',
    root,
  ]);
}

/** What a snapshot does, by tools: one pass, digest and compressed file, on the disk. */
async function tarOpensslZstd(root: string, dir: string): Promise<void> {
  const script =
    'set -o pipefail; tar --sort=name -cf - -C "$1" . | tee >(openssl dgst -sha256 > "$2.sha256") | zstd -1 -q -f -o "$2" && sync "$2"';
  await promisify(execFile)('bash', ['-c', script, 'bash', root, join(dir, 'tar.zst')]);
}

async function timed(action: () => Promise<void>): Promise<number> {
  const started_ms = performance.now();
  await action();
  return performance.now() - started_ms;
}

function median(values: number[]): number {
  return Math.round(values.toSorted((a, b) => a - b)[values.length >> 1]! * 10) / 10;
}

function round2(value: number): number {
  return Math.round(value * 100) / 100;
}

/** The same workspace each time: a linear congruential generator (Numerical Recipes) is all the chance in it. */
export async function makeWorkspace(root: string): Promise<void> {
  let state = 1;
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  const text = makeText(random, 4_000_000);
  const noise = Buffer.from(Array.from({ length: 4_000_000 }, () => random() * 256));
  const weights = Array.from({ length: FILES }, () => random() ** -0.45); // a long tail
  const sum = weights.reduce((a, b) => a + b);
  for (let folder = 0; folder < FILES / 20; folder++) {
    const path = join(root, `area-${folder % 17}`, `part-${folder % 131}`, `unit-${folder}`);
    await mkdir(path, { recursive: true });
    const files = Array.from({ length: 20 }, async (_, n) => {
      const size = Math.round((weights[folder * 20 + n]! / sum) * TOTAL_BYTES);
      const is_asset = random() < 0.5;
      const from = is_asset ? noise : text;
      const start = Math.floor(random() * Math.max(1, from.length - size));
      await writeFile(join(path, `file-${n}.${is_asset ? 'png' : 'ts'}`), from.subarray(start, start + size));
    });
    await Promise.all(files);
  }
}

/** Lines made of words and phrases of which few are frequent, as in code: zstd's first level makes it 3 to 4 times smaller. */
function makeText(random: () => number, size: number): Buffer {
  const pick = (from: string[], bias: number) => from[Math.floor(random() ** bias * from.length)]!;
  const many = (count: number, make: () => string) => Array.from({ length: count }, make);
  const letters = [...'etaoinshrdlucmfwypvbgk'];
  const words = many(3000, () => many(2 + Math.floor(random() * 8), () => pick(letters, 2)).join(''));
  const signs = [' ', ' ', ' = ', '(', ');', '.', ', ', ' => ', ': '];
  const phrases = many(1200, () =>
    many(2 + Math.floor(random() * 5), () => pick(words, 3) + pick(signs, 1)).join(''),
  );
  const parts: string[] = [];
  for (let length = 0; length < size; length += parts.at(-1)!.length) {
    const indent = ' '.repeat(2 * Math.floor(random() * 4));
    parts.push(`${indent}${pick(phrases, 2)}${pick(phrases, 2)}${pick(words, 3)}\n`);
  }
  return Buffer.from(parts.join('').slice(0, size));
}

function printTable(result: SnapshotBench): void {
  const rows = {
    'tar | openssl': result.tar_openssl_ms,
    'tar | openssl, zstd -1, sync': result.tar_openssl_zstd_ms,
    'ours, cold': result.cold_ms,
    'ours, unchanged': result.unchanged_ms,
  };
  console.log('\nsnapshot of 20,000 files and 160 MB');
  console.table(
    Object.fromEntries(Object.entries(rows).map(([what, ms]) => [what, { median_ms: ms ?? 'not here' }])),
  );
}

if (import.meta.main) await run();
