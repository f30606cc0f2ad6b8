/**
 * What a source snapshot leaves out. Three layers, the later one wins:
 *
 *   1. built in: dependencies, build outputs, caches, version control (design.md, "Source snapshot") and secrets;
 *   2. `.kilnignore` at the root, gitignore rules: may leave out more, and `!dist` or `!.env` takes something back in;
 *   3. the publish's own output folder, which is never left out, or there would be nothing to publish.
 *
 * The walk asks from the top down, but the answer for a path inside a left-out folder is right as well.
 */
import ignore from 'ignore';
import { OUTPUT_FOLDERS } from '../domain/left-out.ts';

/** Why a path is left out: built in, `.kilnignore`, or because it holds secrets. Null: it is kept. */
export type Verdict = null | 'excluded' | 'ignored' | 'secret';
export type Exclusion = (rel_path: string, is_dir: boolean) => Verdict;

export interface ExclusionRules {
  /** Text of `.kilnignore` at the root; null when there is none. */
  kilnignore: string | null;
  /** The publish's output, relative to the root; null, '' and '.' protect nothing. */
  output_path: string | null;
  include_git: boolean;
  /** Static content with nothing to build it from: `dist`, `build`, `target` and `_build` are the content. */
  keep_outputs?: boolean;
  /**
   * How much of the tree is wanted. `source` (the default): what a build needs. A copy of a workspace keeps all of it, and
   * one that is stored leaves out the secrets, which `.kilnignore` may take back in.
   */
  wanted?: Wanted;
  /** Is there such a path in the tree? Without it `deps` is kept everywhere (it is an Elixir cache only beside mix.exs). */
  exists?: (rel_path: string) => boolean;
}

export type Wanted = 'source' | 'all_but_secrets' | 'all';

/** Only folders: a script called `build` is source. */
const OUTPUTS = new Set(OUTPUT_FOLDERS);

/** What an install step brings back. */
const DEPENDENCIES = new Set(['node_modules', '.venv', 'venv']);

/** Never worth keeping, wherever they are. */
const CACHES = new Set([
  '__pycache__',
  '.cache',
  '.turbo',
  '.parcel-cache',
  '.pytest_cache',
  '.mypy_cache',
  '.ruff_cache',
  '.gradle',
  '.sass-cache',
  '.eslintcache',
  '.tox',
  '.nox',
  '.kiln',
  '.hg',
  '.svn',
  '.DS_Store',
  'Thumbs.db',
  'desktop.ini',
]);

/**
 * A published folder below one of these was made by a tool and is complete as it is (a Next standalone server
 * brings its own node_modules); anywhere else node_modules is left out even inside the output folder.
 */
const PRODUCTS = new Set([...OUTPUTS, '.next', '.output', 'out', '.svelte-kit', '.vercel']);

const SECRET = /^\.env(\.local|\..*\.local)?$/;

/** Makes the function that decides for each path (relative to the root, '/' between segments, no './'). */
export function makeExclusion(root_rules: ExclusionRules): Exclusion {
  if (root_rules.wanted === 'all') return () => null;
  const output = outputSegments(root_rules.output_path);
  const text = root_rules.kilnignore ?? '';
  const rules = compileRules(text);
  // Rules name parents: `dist` also ignores dist/a. Inside the output the way to it must not count.
  const rules_inside = rules && output.length > 0 ? compileRules(text + takeBack(output)) : rules;
  const known_dirs = new Map<string, Verdict>();

  const own = (path: string, is_dir: boolean): Verdict => {
    const place = relationTo(output, path);
    if (place === 'way' || place === 'output') return null;
    const rule = (place === 'inside' ? rules_inside : rules)?.test(is_dir ? `${path}/` : path);
    if (rule?.unignored) return null;
    if (SECRET.test(basename(path))) return 'secret';
    if (root_rules.wanted === 'all_but_secrets') return null;
    if (builtIn(path, is_dir, place === 'inside' ? output : null, root_rules)) return 'excluded';
    return rule?.ignored ? 'ignored' : null;
  };

  const dirVerdict = (path: string): Verdict => {
    let verdict = known_dirs.get(path);
    if (verdict === undefined) {
      verdict = decide(path, true);
      known_dirs.set(path, verdict);
    }
    return verdict;
  };

  /** `target/debug` while `target/site` is published: the folder on the way is kept, what lies beside the way is not. */
  const besideTheWay = (parent: string): Verdict =>
    relationTo(output, parent) === 'way' ? plainVerdict(parent, rules, root_rules) : null;

  const decide: Exclusion = (path, is_dir) => {
    const slash = path.lastIndexOf('/');
    if (slash > 0) {
      const parent = path.slice(0, slash);
      const inherited = dirVerdict(parent);
      if (inherited) return inherited;
      if (relationTo(output, path) === 'beside') {
        const verdict = besideTheWay(parent);
        if (verdict) return verdict;
      }
    }
    return own(path, is_dir);
  };
  return decide;
}

/** The verdict on a folder on the way to the output, had it not been on the way. */
function plainVerdict(path: string, rules: ignore.Ignore | null, of: ExclusionRules): Verdict {
  const segments = path.split('/');
  for (let n = 1; n <= segments.length; n++) {
    const part = segments.slice(0, n).join('/');
    const rule = rules?.test(`${part}/`);
    if (rule?.unignored) continue;
    if (builtIn(part, true, null, of)) return 'excluded';
    if (rule?.ignored) return 'ignored';
  }
  return null;
}

function builtIn(path: string, is_dir: boolean, inside: string[] | null, of: ExclusionRules): boolean {
  const name = basename(path);
  if (CACHES.has(name)) return true;
  if (name === '.git') return !of.include_git;
  if (name === 'cache') return path === '.next/cache' || path.endsWith('/.next/cache');
  if (OUTPUTS.has(name)) return is_dir && !of.keep_outputs && inside === null;
  if (DEPENDENCIES.has(name)) return inside === null || !inside.some((segment) => PRODUCTS.has(segment));
  if (name === 'deps' && is_dir) {
    return of.exists?.(`${path.slice(0, path.length - 'deps'.length)}mix.exs`) ?? false;
  }
  return false;
}

type Place = 'beside' | 'way' | 'output' | 'inside';

function relationTo(output: string[], path: string): Place {
  if (output.length === 0) return 'beside';
  const whole = output.join('/');
  if (path === whole) return 'output';
  if (path.startsWith(`${whole}/`)) return 'inside';
  return whole.startsWith(`${path}/`) ? 'way' : 'beside';
}

function outputSegments(output_path: string | null): string[] {
  const segments = (output_path ?? '').split('/').filter((s) => s !== '' && s !== '.');
  return segments.includes('..') ? [] : segments;
}

/** gitignore lines that take the folders on the way to the output, and the output, back in. */
function takeBack(output: string[]): string {
  const lines = output.map(
    (_, n) =>
      `!/${output
        .slice(0, n + 1)
        .map(escapeGlob)
        .join('/')}/`,
  );
  return `\n${lines.join('\n')}\n`;
}

function escapeGlob(segment: string): string {
  return segment.replace(/[\\*?[\]!# ]/g, '\\$&');
}

function compileRules(text: string): ignore.Ignore | null {
  if (text.trim() === '') return null;
  return ignore({ ignorecase: false, allowRelativePaths: true }).add(text);
}

function basename(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}
