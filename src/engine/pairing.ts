/**
 * A data folder and a database belong together: the rows name the workspaces, objects and secrets of this very folder. With
 * another database everything in the folder would be nobody's, and a start clears away what is nobody's.
 */
import { randomBytes } from 'node:crypto';
import { open, readdir, readFile, rename } from 'node:fs/promises';
import path from 'node:path';
import { KilnError } from '../domain/errors.ts';
import type { Conn } from '../store/db.ts';
import { readSetting, writeSettingOnce } from '../store/engine.ts';
import { hasTenants } from '../store/tenant.ts';
import type { Folders } from './folders.ts';

const SETTING = 'database_id';

/**
 * Holds the two together from the first start on, also those of a Kiln that did not know of this yet. Nothing has been changed
 * when it refuses.
 * @throws KilnError CONFLICT
 */
export async function pairWithDatabase(db: Conn, folders: Pick<Folders, 'data' | 'sandboxes' | 'objects'>) {
  const file = path.join(folders.data, 'database.id');
  const kept = await keptId(file);
  const known = await readSetting(db, SETTING);
  if (known === kept && kept !== null) return;
  if (typeof known === 'string')
    throw mismatch(
      folders.data,
      kept === null ? 'belongs to another data folder' : 'is not the one of this data folder',
      `If they do belong together (a restored copy, say), write ${known} into ${file}.`,
    );
  if ((await hasContent(folders)) && !(await hasTenants(db)))
    throw mismatch(
      folders.data,
      'is empty, and this data folder is not',
      'To begin anew, choose a new folder or move this one away.',
    );
  const id = kept ?? randomBytes(16).toString('hex');
  // The folder first: a start that is cut off in between is gone on with.
  await keep(file, id);
  await writeSettingOnce(db, SETTING, id);
  if ((await readSetting(db, SETTING)) !== id)
    throw mismatch(folders.data, 'was taken by another data folder just now', '');
}

function mismatch(data: string, why: string, way_out: string): KilnError {
  return new KilnError(
    'CONFLICT',
    `The database ${why} (${data}): its workspaces and releases would be cleared away as nobody's. Start with the ` +
      `database that belongs to it (--database), or with another folder (--data). ${way_out}`.trimEnd(),
  );
}

async function keptId(file: string): Promise<string | null> {
  try {
    return (await readFile(file, 'utf8')).trim() || null;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return null;
  }
}

async function keep(file: string, id: string): Promise<void> {
  const temporary = `${file}.tmp`;
  const handle = await open(temporary, 'w', 0o600);
  try {
    await handle.writeFile(`${id}\n`);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(temporary, file);
}

async function hasContent({ sandboxes, objects }: Pick<Folders, 'sandboxes' | 'objects'>): Promise<boolean> {
  const names = await Promise.all([sandboxes, objects].map((dir) => readdir(dir)));
  return names.flat().some((name) => !name.startsWith('.'));
}
