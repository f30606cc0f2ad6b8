/**
 * Folders that a build writes, left out of a source wherever they are (design.md, "Source snapshot"). Somebody who commits
 * one, or calls a folder of their own so, meets it as a file that is not there: these are the words for that.
 */
export const OUTPUT_FOLDERS: readonly string[] = ['dist', 'build', 'target', '_build'];

/** The folder of that kind in a path: 'src/build/m.js' gives 'src/build'. Null when there is none. */
export function leftOutFolder(path: string): string | null {
  const parts = path
    .replace(/^\/workspace\//, '')
    .split('/')
    .filter((part) => part !== '' && part !== '.');
  const at = parts.findIndex((part) => OUTPUT_FOLDERS.includes(part));
  // An absolute path elsewhere is the system's, and what lies in packages came with them.
  const foreign = path.startsWith('/') && !path.startsWith('/workspace/');
  if (at < 0 || foreign || parts.slice(0, at).some((part) => part === 'node_modules' || part === '..'))
    return null;
  return parts.slice(0, at + 1).join('/');
}

/** How to take it back in. By its name alone: what a log says is seldom relative to the root, and `!dist` fits at any depth. */
export function takeBackIn(folder: string): string {
  const name = folder.slice(folder.lastIndexOf('/') + 1);
  const names = `${OUTPUT_FOLDERS.slice(0, -1).join(', ')} and ${OUTPUT_FOLDERS.at(-1)}`;
  return `Folders called ${names} are taken for build output and left out of the source, wherever they are. If this one is source, put a line !${name} into .kilnignore and publish again; if it is built, the build has to write it.`;
}

const MISSING =
  /cannot find|can't find|can't resolve|could not resolve|not found|no such file|is not in std|no required module|no module named|does not exist|unable to (?:open|access|load)/i;
/** A word with a slash in it; what stands before a colon with a number is the place where it was asked for. */
const PATH = /[\w@.+-]*(?:\/[\w@.+-]+)+(?!:\d)(?![\w@.+/-])/g;
/** Go's `//go:embed all:dist`. */
const EMBEDDED = /pattern (?:all:)?([^\s:]{1,200}): (?:no matching files found|cannot embed)/;
const MAX_LINE_CHARS = 1000;

/** A path that a log says is missing and that may have been left out: the path and its folder. */
export function missingLeftOut(log: readonly string[]): { path: string; folder: string } | null {
  for (const line of log) {
    const text = line.slice(0, MAX_LINE_CHARS);
    const embedded = EMBEDDED.exec(text)?.[1];
    if (embedded === undefined && !MISSING.test(text)) continue;
    const module = /No module named ['"]?([\w.]{1,200})/.exec(text)?.[1];
    const paths =
      embedded !== undefined
        ? [embedded]
        : module === undefined
          ? (text.match(PATH) ?? [])
          : [module.replaceAll('.', '/')];
    for (const path of paths) {
      const folder = leftOutFolder(path);
      if (folder !== null) return { path: module ?? path, folder };
    }
  }
  return null;
}
