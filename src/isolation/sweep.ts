import { createHash } from 'node:crypto';
import { realpathSync } from 'node:fs';
import { basename, resolve } from 'node:path';
import { killTree, makeTree, type ProcessScanner } from './processes.ts';
import { removeTree, strayDirs } from './scratch.ts';

/** Short digest of a data folder's path: the mark by which its machines are found again. */
export function dataKey(data_dir: string): string {
  let path = resolve(data_dir);
  try {
    path = realpathSync(path);
  } catch {
    // Not made yet: its path will do.
  }
  return createHash('sha256').update(path).digest('hex').slice(0, 16);
}

/**
 * Kills every machine of a data folder but those to keep, and removes private folders nobody uses. Machines are
 * known by their marks; the folders name those whose processes kept only the mark without a name.
 */
export async function sweepMachines(o: {
  scanner: ProcessScanner;
  data_key: string;
  work_dir: string;
  keep: (id: string) => boolean;
}): Promise<string[]> {
  const prefix = `${o.data_key}/`;
  const table = o.scanner.scan();
  const dirs = await strayDirs(o.work_dir, o.keep);
  const ids = new Set(dirs.map((dir) => basename(dir)));
  for (const row of table.values())
    if (row.pid !== process.pid && row.marks().name?.startsWith(prefix))
      ids.add(row.marks().name!.slice(prefix.length));
  const lost: string[] = [];
  for (const id of ids) {
    const tree = makeTree(prefix + id, null);
    if (o.keep(id) || tree.members(table).length === 0) continue;
    lost.push(id);
    await killTree(tree, o.scanner, () => []);
  }
  await Promise.all(dirs.map((dir) => removeTree(dir)));
  return lost.sort();
}
