/** Files that root file systems are made of: each made once, whole or not at all, and removed when nobody keeps it. */
import { spawn } from 'node:child_process';
import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { KilnError } from '../../domain/errors.ts';

/** Two that need the same file would do the same work; the second waits for the first. */
const making = new Map<string, Promise<string>>();
let next = 0;

const MAX_MAKING_MS = 30 * 60_000;
const MAX_COMPLAINT = 4096;
const NAME = /^([0-9a-f]{64}\.(?:squashfs|headers))(\.[\w-]+\.tmp)?$/;

/** The path of a squashfs; `tar` gives its content and is called only when there is none yet. */
export function makeSquashfs(images_dir: string, name: string, tar: () => Readable): Promise<string> {
  return makeFile(images_dir, name, (out) => tar2sqfs(tar(), out));
}

/** The path of the file, which `write` makes (under another name) when there is none yet. */
export function makeFile(
  images_dir: string,
  name: string,
  write: (path: string) => Promise<void>,
): Promise<string> {
  const file = path.join(images_dir, name);
  const running = making.get(file);
  if (running) return running;
  const made = make(file, write).finally(() => making.delete(file));
  making.set(file, made);
  return made;
}

/** Removes what nobody keeps (names), and what a crash left. Answers how many files. */
export async function sweepRootFiles(images_dir: string, keep: ReadonlySet<string>): Promise<number> {
  let removed = 0;
  for (const name of await readdir(images_dir).catch(() => [] as string[])) {
    const [, whole, temporary] = NAME.exec(name) ?? [];
    if (whole === undefined) continue; // not of this module
    if (making.has(path.join(images_dir, whole)) || (keep.has(whole) && !temporary)) continue;
    const file = path.join(images_dir, name);
    // A machine that runs from it has a link of its own: removing this one would free nothing.
    const info = await stat(file).catch(() => null);
    if (info === null || info.nlink > 1) continue;
    await rm(file, { force: true });
    removed++;
  }
  return removed;
}

async function make(file: string, write: (path: string) => Promise<void>): Promise<string> {
  if (await stat(file).catch(() => null)) return file;
  await mkdir(path.dirname(file), { recursive: true });
  const temporary = `${file}.${process.pid}-${next++}.tmp`;
  try {
    await write(temporary);
    await flush(temporary);
    await rename(temporary, file);
    return file;
  } finally {
    await rm(temporary, { force: true });
  }
}

/** Many releases start from one file: after a power cut it must not be there half. */
async function flush(file: string): Promise<void> {
  await using handle = await open(file, 'r');
  await handle.sync();
}

/**
 * The same tar gives the same bytes: times and owners are the tar's, the superblock's time is 0. The tool's own zstd
 * level, 15, took 18.3 s of processor for 192 MB of /usr and gave 69 MB; level 1 took 0.5 s and gave 77.
 */
const ARGUMENTS = [
  ...['--quiet', '--no-skip', '--force', '--defaults', 'mtime=0'],
  ...['--compressor', 'zstd', '--comp-extra', 'level=1'],
];

async function tar2sqfs(tar: Readable, out: string): Promise<void> {
  const tool = spawn('tar2sqfs', [...ARGUMENTS, out], {
    stdio: ['pipe', 'ignore', 'pipe'],
    signal: AbortSignal.timeout(MAX_MAKING_MS),
    killSignal: 'SIGKILL',
  });
  let complaint = '';
  tool.stderr.on('data', (chunk) => {
    complaint = (complaint + chunk).slice(-MAX_COMPLAINT);
  });
  const exited = new Promise<number | null>((resolve, reject) => {
    tool.once('error', reject);
    tool.once('close', resolve);
  });
  const [fed, exit] = await Promise.allSettled([
    pipeline(tar, tool.stdin).catch((error) => {
      // Without an end of its own the tool would take half a tar for a whole one, or wait for ever.
      if (error?.code !== 'EPIPE') tool.kill('SIGKILL');
      throw error;
    }),
    exited,
  ]);
  if (exit.status === 'rejected') throw cannotRun(exit.reason);
  // A tool that stops reading says why itself; every other failure is one of the layers.
  if (fed.status === 'rejected' && fed.reason?.code !== 'EPIPE') throw fed.reason;
  if (exit.value === 0) return;
  throw new KilnError(
    'STORAGE_FAILED',
    `The squashfs of the image could not be made (tar2sqfs: ${complaint.trim().split('\n').at(-1) || `exit ${exit.value}`}). Check the space in the data folder (kiln gc).`,
  );
}

function cannotRun(error: NodeJS.ErrnoException): KilnError {
  if (error.code === 'ENOENT')
    return new KilnError(
      'UNSUPPORTED',
      'tar2sqfs is not installed, which makes root file systems for virtual machines. Install the package squashfs-tools-ng.',
    );
  const why =
    error.name === 'AbortError' ? `not done after ${MAX_MAKING_MS / 60_000} minutes` : error.message;
  return new KilnError('STORAGE_FAILED', `The squashfs of the image could not be made (${why}).`, {
    cause: error,
  });
}
