/** Root file systems for virtual machines: a read-only squashfs of an image's flattened layers, kept by its digest. */
import { spawn } from 'node:child_process';
import { mkdir, rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { KilnError } from '../../domain/errors.ts';
import { hexOf } from './manifest.ts';

/** Two of the same image would do the same work; the second waits for the first. */
const making = new Map<string, Promise<string>>();
let next = 0;

const MAX_MAKING_MS = 30 * 60_000;
const MAX_COMPLAINT = 4096;

/** The path of the image's squashfs; `open` gives the tar and is called only when there is none yet. */
export function squashfsOf(of: {
  digest: string;
  images_dir: string;
  open: () => Readable;
}): Promise<string> {
  const file = path.join(of.images_dir, `${hexOf(of.digest)}.squashfs`);
  const running = making.get(file);
  if (running) return running;
  const made = make(file, of.open).finally(() => making.delete(file));
  making.set(file, made);
  return made;
}

async function make(file: string, open: () => Readable): Promise<string> {
  if (await stat(file).catch(() => null)) return file;
  await mkdir(path.dirname(file), { recursive: true });
  const temporary = `${file}.${process.pid}-${next++}.tmp`;
  try {
    await tar2sqfs(open(), temporary);
    await rename(temporary, file);
    return file;
  } finally {
    await rm(temporary, { force: true });
  }
}

/** The same tar gives the same bytes: times and owners are the tar's, the superblock's time is 0. */
const ARGUMENTS = ['--quiet', '--no-skip', '--force', '--compressor', 'zstd', '--defaults', 'mtime=0'];

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
