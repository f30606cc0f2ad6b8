/** The folder a command was given, checked before anything is done with it. */
import { realpathSync, statSync } from 'node:fs';
import path from 'node:path';
import { badInput } from './exit.ts';

/** Its real path, so that two ways to one folder are one folder. */
export function readFolder(cwd: string, given: string): string {
  const full = path.resolve(cwd, given);
  const stat = statSync(full, { throwIfNoEntry: false });
  if (!stat) throw badInput(`There is no folder ${full}.`);
  if (!stat.isDirectory())
    throw badInput(`${full} is a file.`, `Give the folder it is in: ${path.dirname(full)}.`);
  return realpathSync(full);
}
