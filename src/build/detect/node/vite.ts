/** Sites that Vite builds: where the pages go, by config file and by the options of the build script. */
import { cleanPath } from '../../files.ts';
import { quote } from '../../quote.ts';
import { type FrameworkResult, folderArgument, folderOption, folderSetting, optionOf } from './framework.ts';
import table from './framework-table.json' with { type: 'json' };
import type { NodePackage } from './package.ts';

/** A site made for a path of another host (GitHub Pages) asks for its files below that path. */
const baseNotes = (base: string | null): string[] =>
  base === null || !/^\/[\w./-]*[\w]/.test(base)
    ? []
    : [
        `The site is built for ${base}, so its pages ask for their files there, and it is served at /. Leave out the base.`,
      ];

export function vitepress(pkg: NodePackage): FrameworkResult {
  const command = 'vitepress build';
  const usual = !pkg.app.exists('.vitepress') && pkg.app.exists('docs/.vitepress') ? 'docs' : '.';
  const folder = folderArgument(pkg, command) ?? usual;
  const build = `${command}${folder === '.' ? '' : ` ${quote(folder)}`}`;
  // Unlike the folder of a config file, that of the option is relative to where the command runs.
  const output = folderOption(pkg, command, '--outDir') ?? cleanPath(`${folder}/.vitepress/dist`)!;
  const base = optionOf(pkg, command, '--base');
  return { framework: 'vitepress', kind: 'static', build, output, warnings: baseNotes(base) };
}

/** `vite build client --outDir x`: x is relative to the folder that is built. */
export function vite(pkg: NodePackage): FrameworkResult {
  const { command, output } = table.vite;
  const root = folderArgument(pkg, command) ?? '.';
  const folder =
    optionOf(pkg, command, '--outDir', '--out-dir') ?? folderSetting(pkg, 'vite.config', 'outDir') ?? output;
  return {
    framework: 'vite',
    kind: 'static',
    build: command,
    output: cleanPath(`${root}/${folder}`) ?? output,
    spa_fallback: 'index.html',
    warnings: baseNotes(optionOf(pkg, command, '--base')),
  };
}
