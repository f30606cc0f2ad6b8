/** The data folder: everything one engine keeps on disk, and the lock that makes it one engine's at a time. */
import { randomBytes } from 'node:crypto';
import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { chmod, mkdir, open, rename, rm, stat, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { KilnError } from '../domain/errors.ts';

export interface Folders {
  data: string;
  database: string;
  objects: string;
  sandboxes: string;
  work: string;
  instances: string;
  machines: string;
  /** Root file systems made from images, by digest; made again when missing. */
  images: string;
  /** What `kiln builder-image build` made. */
  builder_images: string;
  /** What builds in docker and microVMs start from, as OCI images. */
  base_images: string;
  /** Instances that are virtual machines. */
  instance_machines: string;
  /** Package caches of builds, by deployment. */
  build_caches: string;
  build_logs: string;
  instance_logs: string;
  /** What the CLI of this machine remembers of folders, so as not to read every file again. */
  caches: string;
  /** What programs of the host said of themselves; asked again when missing. */
  answers: string;
  tmp: string;
}

/**
 * Makes what is missing. Only the engine's user may look into the folders, whatever mode they or the data folder were made
 * with; one whose mode cannot be changed is told to `on_open` and used as it is.
 */
export async function makeFolders(data: string, on_open: (dir: string) => void = () => {}): Promise<Folders> {
  const at = (...parts: string[]) => path.join(data, ...parts);
  const folders: Folders = {
    data,
    database: at('database'),
    objects: at('objects'),
    sandboxes: at('sandboxes'),
    work: at('work'),
    instances: at('instances'),
    machines: at('machines'),
    images: at('images'),
    builder_images: at('builder-images'),
    base_images: at('base-images'),
    instance_machines: at('instance-machines'),
    build_caches: at('build-caches'),
    build_logs: at('logs', 'builds'),
    instance_logs: at('logs', 'instances'),
    caches: at('cache', 'manifests'),
    answers: at('cache', 'answers'),
    tmp: at('tmp'),
  };
  await mkdir(data, { recursive: true, mode: 0o700 });
  const { data: _, ...below } = folders;
  for (const dir of [at('logs'), at('cache'), ...Object.values(below)]) {
    await mkdir(dir, { recursive: true, mode: 0o700 });
    if (((await stat(dir)).mode & 0o077) !== 0) await chmod(dir, 0o700).catch(() => on_open(dir));
  }
  return folders;
}

interface Holder {
  pid: number;
  host: string;
  /** Kernel start time of the process: tells a holder from a later process with the same pid. */
  started: string | null;
  api: string;
}

export interface FolderLock {
  /** Says where the API really listens, once that is known. */
  announce(api: string): void;
  release(): void;
}

/**
 * Takes the folder for this process. A second engine gets CONFLICT, which names the holder; a lock left by a crash or
 * a reboot is recognised by its process being gone, and replaced.
 */
export function lockFolder(data: string, api: string): FolderLock {
  const file = path.join(data, 'kiln.lock');
  const own: Holder = { pid: process.pid, host: os.hostname(), started: startTime(process.pid), api };
  for (let tries = 0; tries < 5; tries++) {
    if (placeLock(file, JSON.stringify(own)))
      return {
        announce: (url) => replaceLock(file, JSON.stringify({ ...own, api: url })),
        release: () => rmSync(file, { force: true }),
      };
    const text = readText(file);
    if (text === null) continue;
    const holder = parseHolder(text);
    if (holder && isAlive(holder))
      throw new KilnError(
        'CONFLICT',
        `The data folder ${data} is in use by the Kiln engine with process id ${holder.pid} on ${holder.host} (API ${holder.api}). Use that one, stop it, or choose another folder with --data.`,
      );
    takeAway(file, text);
  }
  throw new KilnError(
    'CONFLICT',
    `The lock ${file} could not be taken; another engine is starting. Try again.`,
  );
}

/** Makes the lock in one step, its text in it: nobody ever sees one that is half written and takes it for a wreck. */
function placeLock(file: string, text: string): boolean {
  const made = `${file}.${randomBytes(6).toString('hex')}`;
  writeFileSync(made, text, { mode: 0o600, flag: 'wx' });
  try {
    return linkUnlessThere(made, file);
  } finally {
    rmSync(made, { force: true });
  }
}

function linkUnlessThere(from: string, to: string): boolean {
  try {
    linkSync(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    return false;
  }
}

function replaceLock(file: string, text: string): void {
  const made = `${file}.${randomBytes(6).toString('hex')}`;
  writeFileSync(made, text, { mode: 0o600, flag: 'wx' });
  renameSync(made, file);
}

/**
 * Removes the lock of a dead engine, which another starting engine may be doing as well: a rename is had by one of
 * them only, and what it finds not to be the dead one's lock but the other's new one, it puts back.
 */
function takeAway(file: string, stale: string): void {
  const aside = `${file}.${randomBytes(6).toString('hex')}`;
  try {
    renameSync(file, aside);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw error;
  }
  try {
    if (readText(aside) !== stale) linkUnlessThere(aside, file);
  } finally {
    rmSync(aside, { force: true });
  }
}

/** Who holds the folder, for the CLI: where its API listens. Null when nobody does. */
export function folderHolder(data: string): Holder | null {
  const holder = parseHolder(readText(path.join(data, 'kiln.lock')));
  return holder && isAlive(holder) ? holder : null;
}

function readText(file: string): string | null {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

function parseHolder(text: string | null): Holder | null {
  try {
    return text === null ? null : (JSON.parse(text) as Holder);
  } catch {
    return null; // torn by a power cut
  }
}

function isAlive(holder: Holder): boolean {
  // A folder on a shared disk held by another host cannot be checked from here: it counts as held.
  if (holder.host !== os.hostname()) return true;
  try {
    process.kill(holder.pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
  }
  const now = statOf(holder.pid);
  if (now === null) return true;
  // It has ended, but whoever started it has not asked for that yet: in a container that can take for ever.
  if (now.state === 'Z' || now.state === 'X') return false;
  return holder.started === null || now.started === holder.started;
}

function startTime(pid: number): string | null {
  return statOf(pid)?.started ?? null;
}

/** Fields 3 and, with the boot id, 22 of /proc/<pid>/stat (proc(5)); null where there is no /proc. */
function statOf(pid: number): { state: string; started: string } | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const after_name = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
    return { state: after_name[0]!, started: `${boot}:${after_name[19]}` };
  } catch {
    return null;
  }
}

/**
 * A random secret kept in the data folder with mode 0600, made on first use: on the disk before anything depends on it,
 * and there whole or not at all. A file without content holds no secret. `before_making` may refuse to have one made.
 */
export async function keptSecret(
  data: string,
  name: string,
  make = () => randomBytes(32).toString('hex'),
  before_making: () => Promise<void> = async () => undefined,
): Promise<string> {
  const file = path.join(data, name);
  const kept = readText(file)?.trim() ?? '';
  if (kept !== '') return kept;
  await before_making();
  const secret = make();
  const made = `${file}.part`;
  await rm(made, { force: true });
  await writeFile(made, `${secret}\n`, { mode: 0o600, flag: 'wx', flush: true });
  await chmod(made, 0o600);
  await rename(made, file);
  await using folder = await open(data);
  await folder.sync();
  return secret;
}
