/** What a rule about a JavaScript framework answers, and how it reads the framework's config files. */
import type { Evidence, ReleaseKind } from '../../../domain/plan.ts';
import { cleanPath } from '../../files.ts';
import type { NodePackage } from './package.ts';

export interface FrameworkPlan {
  framework: string;
  kind: ReleaseKind;
  /** Used when package.json has no build script; null when nothing has to be built. */
  build: string | null;
  after_build?: string[];
  start?: string;
  /** Static: folder to serve, relative to the app. */
  output?: string;
  spa_fallback?: string | null;
  extra_install?: string[];
  build_env?: Record<string, string>;
  run_env?: Record<string, string>;
  evidence?: Evidence[];
  warnings?: string[];
}

export type FrameworkResult = FrameworkPlan | { stuck: string; next_step: string } | null;

export const extensions = (name: string) =>
  ['js', 'mjs', 'cjs', 'ts', 'mts', 'cts'].map((extension) => `${name}.${extension}`);

/** A setting in a config file ('a|b': either), read from its text, never run. Comment lines do not count. */
export function setting(pkg: NodePackage, config: string, what: RegExp) {
  const files = config
    .split('|')
    .flatMap(extensions)
    .filter((file) => pkg.app.exists(file));
  return pkg.app.search(files, new RegExp(`^(?!\\s*(?://|\\*|/\\*)).*?${what.source}`, what.flags));
}

export function folderSetting(pkg: NodePackage, config: string, key: string): string | null {
  const hit = setting(pkg, config, new RegExp(`\\b${key}\\s*[:=]\\s*['"\`]([^'"\`$]{1,200})['"\`]`));
  return hit ? cleanPath(hit.match[1]!.replace(/^\/+/, '')) : null;
}

export const seen = (
  pkg: NodePackage,
  hit: { file: string; line: number; match: RegExpExecArray },
  follows: string,
): Evidence => ({
  ...pkg.app.evidence(hit.file, hit.match[0].trim().slice(0, 120), follows),
  line: hit.line,
});

/**
 * The words after a command (`vite build`) in the script that runs it, the one called build first; null when none does.
 * Each script by itself: what follows in another one belongs to something else.
 */
function argumentsOf(pkg: NodePackage, command: string): string[] | null {
  const scripts = [pkg.scripts.get('build') ?? '', ...pkg.scripts.values()];
  const called = new RegExp(`\\b${command.replaceAll(' ', '[ \\t]+')}(?=[ \\t]|$)([^&|;<>()\\n]*)`, 'm');
  const found = scripts
    .map((text) => called.exec(text.slice(0, 2000))?.[1])
    .find((text) => text !== undefined);
  return found === undefined ? null : (found.match(/"[^"]*"|'[^']*'|[^\s"']+/g) ?? []);
}

const unquoted = (word: string) => word.replace(/^(["'])(.*)\1$/, '$2');

/** The word right after a command, unless it is an option: the folder that `vitepress build docs` builds. */
export function folderArgument(pkg: NodePackage, command: string): string | null {
  const first = argumentsOf(pkg, command)?.[0];
  return first === undefined || first.startsWith('-') ? null : cleanPath(unquoted(first));
}

/** The value of an option of a command in a script: `vite build --outDir x`, `--outDir=x`. */
export function optionOf(pkg: NodePackage, command: string, ...names: string[]): string | null {
  const words = argumentsOf(pkg, command) ?? [];
  for (const [at, word] of words.entries()) {
    const name = names.find((one) => word === one || word.startsWith(`${one}=`));
    if (name === undefined) continue;
    // --outDir="x" comes as two words.
    const value = word.slice(name.length + 1) || (words[at + 1] ?? '');
    return value === '' || value.startsWith('-') ? null : unquoted(value);
  }
  return null;
}

/** That value as a folder; null when it leaves the source. */
export function folderOption(pkg: NodePackage, command: string, ...names: string[]): string | null {
  const value = optionOf(pkg, command, ...names);
  return value === null || /[$`]/.test(value) ? null : cleanPath(value);
}
