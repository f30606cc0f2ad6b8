import { execFile } from 'node:child_process';
import { mkdir, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, isAbsolute, join, relative, resolve, sep } from 'node:path';
import { promisify } from 'node:util';
import type { MachineSpec } from './driver.ts';
import { checkEnvironment } from './environment.ts';

/** A file to be written into a machine's HOME before it starts. `path` is relative to HOME. */
export interface HomeFile {
  path: string;
  text: string;
}

const MACHINE_ID = /^[A-Za-z0-9_-]{1,64}$/;

/**
 * Rejects a machine that must not be started: an id that is no file name, a working folder outside the workspace,
 * names or texts that would end an argument early (NUL), a workspace that is not there.
 */
export async function checkSpec(spec: MachineSpec, o: { own_kernel?: boolean } = {}): Promise<void> {
  if (!MACHINE_ID.test(spec.id)) throw new Error(`machine id ${JSON.stringify(spec.id)} is not a plain name`);
  if (spec.as_root && !o.own_kernel)
    throw new Error(`machine ${spec.id} asks for root, and this driver's machines share the host's kernel`);
  if (spec.command.includes('\0')) throw new Error(`the command of machine ${spec.id} holds a NUL character`);
  checkEnvironment(spec.env, 'a machine');
  if (!isInside(spec.workspace_dir, join(spec.workspace_dir, spec.cwd)) || isAbsolute(spec.cwd))
    throw new Error(`the working folder ${JSON.stringify(spec.cwd)} is outside the workspace`);
  const info = await stat(join(spec.workspace_dir, spec.cwd)).catch(() => null);
  if (!info?.isDirectory())
    throw new Error(`the working folder ${JSON.stringify(spec.cwd)} is not in ${spec.workspace_dir}`);
}

/** Is `path` the folder `parent` or below it? Both are taken as they are, links not resolved. */
export function isInside(parent: string, path: string): boolean {
  const way = relative(resolve(parent), resolve(path));
  return way === '' || (way !== '..' && !way.startsWith(`..${sep}`) && !isAbsolute(way));
}

/** Makes a machine's private folder with `tmp` and `home`, readable by the engine's user only. */
export async function makePrivateDir(dir: string, home_files: readonly HomeFile[]): Promise<void> {
  await removeTree(dir);
  for (const name of ['tmp', 'home']) await mkdir(join(dir, name), { recursive: true, mode: 0o700 });
  for (const file of home_files) {
    const path = join(dir, 'home', file.path);
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    await writeFile(path, file.text, { mode: 0o600 });
  }
}

/** Removes a folder whatever its modes are (Go's module cache is read-only). Never rejects: `sweep` tries again. */
export async function removeTree(dir: string): Promise<void> {
  const options = { recursive: true, force: true, maxRetries: 2 };
  try {
    await rm(dir, options);
  } catch {
    await promisify(execFile)('chmod', ['-R', 'u+rwX', '--', dir]).catch(() => undefined);
    await rm(dir, options).catch(() => undefined);
  }
}

/** Private folders of machines that are not in `keep`. */
export async function strayDirs(work_dir: string, keep: (id: string) => boolean): Promise<string[]> {
  const names = await readdir(work_dir).catch(() => []);
  return names.filter((name) => MACHINE_ID.test(name) && !keep(name)).map((name) => join(work_dir, name));
}
