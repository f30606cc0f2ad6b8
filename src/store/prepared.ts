/**
 * An empty database with Kiln's tables, made once when Kiln is installed: initdb takes PGlite 2.5 s and the tables up to
 * a second more, a copy of the folder a fraction of that. It is kept with the installed packages and belongs to one
 * version of PGlite and these very migrations.
 */
import { createHash } from 'node:crypto';
import { constants, readdirSync, readFileSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, open, readdir, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const FLUSHED_AT_ONCE = 8;

/** Where it is for the PGlite that is installed, and for the migrations that are here. */
export function preparedFolder(): string {
  const entry = fileURLToPath(import.meta.resolve('@electric-sql/pglite'));
  const root = path.join(path.dirname(entry), '..');
  const { version } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')) as {
    version: string;
  };
  return path.join(root, '..', '..', '.kiln', `database-${version}-${migrationsDigest()}`);
}

/** `install.mjs` has the same. */
function migrationsDigest(): string {
  const dir = path.join(import.meta.dirname, 'migrations');
  const hash = createHash('sha256');
  for (const name of readdirSync(dir).sort()) hash.update(name).update(readFileSync(path.join(dir, name)));
  return hash.digest('hex').slice(0, 12);
}

/** Of some version; what is still being made has one more ending. */
const PREPARED = /^database-[\d.]+(?:-[0-9a-f]{12})?$/;

/** Makes it, unless it is there, in place of those of other versions. Two at once do no harm. */
export async function prepareDatabase(to: string, make: (dir: string) => Promise<void>): Promise<void> {
  if (await hasEntries(to)) return;
  await mkdir(path.dirname(to), { recursive: true });
  const made = await mkdtemp(`${to}.`);
  try {
    await make(made);
    await flush(made);
    await rename(made, to).catch(async (error) => {
      if (!(await hasEntries(to))) throw error;
    });
    const { dir, base } = path.parse(to);
    for (const name of await readdir(dir))
      if (PREPARED.test(name) && name !== base)
        await rm(path.join(dir, name), { recursive: true, force: true });
  } finally {
    await rm(made, { recursive: true, force: true });
  }
}

/** Puts a copy at `dir` if nothing is in it yet, whole or not at all. Without one to copy `dir` stays as it is. */
export async function placePrepared(dir: string, from = preparedFolder): Promise<void> {
  if (await hasEntries(dir)) return;
  const prepared = from();
  if (!(await hasEntries(prepared))) return;
  const copy = `${dir}.new`;
  await rm(copy, { recursive: true, force: true });
  await mkdir(copy, { recursive: true, mode: 0o700 });
  const entries = await readdir(prepared, { recursive: true, withFileTypes: true });
  const at = (one: (typeof entries)[number], root: string) =>
    path.join(root, path.relative(prepared, one.parentPath), one.name);
  const folders = entries.filter((one) => one.isDirectory()).map((one) => at(one, copy));
  for (const folder of folders.sort()) await mkdir(folder, { mode: 0o700 });
  const files = entries.filter((one) => one.isFile());
  await Promise.all(
    files.map((one) => copyFile(at(one, prepared), at(one, copy), constants.COPYFILE_FICLONE)),
  );
  await flush(copy);
  // Takes the place of an empty folder only.
  await rename(copy, dir);
}

/** So that no file has its name without its content after a power cut. */
async function flush(dir: string): Promise<void> {
  const entries = await readdir(dir, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile());
  const next = async (): Promise<void> => {
    for (let one = files.pop(); one !== undefined; one = files.pop()) {
      const file = await open(path.join(one.parentPath, one.name));
      await file.sync().finally(() => file.close());
    }
  };
  await Promise.all(Array.from({ length: FLUSHED_AT_ONCE }, next));
}

async function hasEntries(dir: string): Promise<boolean> {
  const entries = await readdir(dir).catch(() => []);
  return entries.length > 0;
}
