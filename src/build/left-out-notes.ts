/** What the plan has to say about files that a source does not have because folders of that name are left out. */
import { leftOutFolder, takeBackIn } from '../domain/left-out.ts';
import type { Plan } from '../domain/plan.ts';
import { joinPath, type SourceFiles } from './files.ts';

/** A start command that names such a file, while nothing is built that could write it. */
export function leftOutNotes(plan: Plan, setup: string | null, files: SourceFiles): string[] {
  if (plan.start === null || plan.build.length > 0 || plan.mode === 'dockerfile') return [];
  const command = plan.start.slice(setup !== null && plan.start.startsWith(setup) ? setup.length : 0);
  for (const word of command.split(/[\s;&|<>()"'=]+/)) {
    const folder = leftOutFolder(word);
    if (folder === null || files.exists(joinPath(plan.root, folder) ?? '\0')) continue;
    const named = plan.root === '.' ? folder : `${plan.root}/${folder}`;
    return [`The start command names ${word}, but the source has no ${named}. ${takeBackIn(named)}`];
  }
  return [];
}
