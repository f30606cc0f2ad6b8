import { reachedFiles, type SourceFiles } from '../build/files.ts';
import { followInside } from '../source/paths.ts';
import type { Folders } from '../source/tree.ts';

/** What planning sees of a workspace in which code of the sandbox may put links where folders were, at any moment. */
export function workspaceFiles(folders: Folders): SourceFiles {
  return reachedFiles({
    follow: (path) => followInside(folders, path),
    folder: (at) => folders.at(at),
    entry: (at) => folders.entry(at),
  });
}
