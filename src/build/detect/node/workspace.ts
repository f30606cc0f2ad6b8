/** Workspaces of npm, pnpm, yarn and bun: which packages a repository has, and which repository a package is in. */
import { cleanPath, joinPath, type SourceFiles } from '../../files.ts';
import { stringAt, stringsAt, tableAt } from '../../manifest.ts';
import { type App, openApp } from '../app.ts';

const MAX_PACKAGES = 500;
const MAX_PATTERNS = 100;
const MAX_DEPTH = 5;

export const LOCKFILES = [
  'pnpm-lock.yaml',
  'yarn.lock',
  'bun.lock',
  'bun.lockb',
  'package-lock.json',
  'npm-shrinkwrap.json',
];

/** The workspace patterns a folder declares; empty when it is not a workspace root. */
export function workspacePatterns(app: App): string[] {
  const declared = app.json('package.json')?.workspaces;
  const patterns = Array.isArray(declared)
    ? stringsAt({ declared }, 'declared')
    : stringsAt(app.json('package.json'), 'workspaces', 'packages');
  return [...patterns, ...stringsAt(app.yaml('pnpm-workspace.yaml'), 'packages')].slice(0, MAX_PATTERNS);
}

/** Folders of the packages of a workspace, inside the source, sorted. */
export function workspacePackages(app: App): string[] {
  const found = new Set<string>();
  const patterns = workspacePatterns(app);
  for (const pattern of patterns.filter((one) => !one.startsWith('!'))) {
    for (const dir of expand(app, '.', (cleanPath(pattern) ?? '').split('/').filter(Boolean))) {
      if (found.size < MAX_PACKAGES && app.exists(`${dir}/package.json`)) found.add(joinPath(app.root, dir)!);
    }
  }
  for (const pattern of patterns.filter((one) => one.startsWith('!'))) {
    for (const dir of expand(app, '.', (cleanPath(pattern.slice(1)) ?? '').split('/').filter(Boolean))) {
      found.delete(joinPath(app.root, dir)!);
    }
  }
  found.delete(app.root);
  return [...found].sort();
}

/** The folders that a pattern such as `apps/*` or `packages/**` names. */
function expand(app: App, dir: string, parts: string[], depth = 0): string[] {
  const [part, ...rest] = parts;
  if (part === undefined) return dir === '.' ? [] : [dir];
  if (depth > MAX_DEPTH) return [];
  if (!part.includes('*')) return expand(app, cleanPath(`${dir}/${part}`) ?? '.', rest, depth + 1);
  const folders = app
    .list(dir)
    .filter(({ name, type }) => type === 'dir' && name !== 'node_modules' && !name.startsWith('.'))
    .slice(0, MAX_PACKAGES);
  if (part === '**') {
    const below = folders.flatMap(({ name }) =>
      expand(app, cleanPath(`${dir}/${name}`) ?? '.', parts, depth + 1),
    );
    return [...expand(app, dir, rest, depth + 1), ...below].slice(0, MAX_PACKAGES * 4);
  }
  const [head = '', tail = ''] = part.split('*', 2);
  return folders
    .filter(
      ({ name }) => name.length >= head.length + tail.length && name.startsWith(head) && name.endsWith(tail),
    )
    .flatMap(({ name }) => expand(app, cleanPath(`${dir}/${name}`) ?? '.', rest, depth + 1));
}

/** The folder whose lockfile and node_modules a package uses: the workspace that lists it, else itself. */
export function workspaceTop(files: SourceFiles, dir: string): string {
  if (dir === '.' || LOCKFILES.some((name) => files.exists(`${dir}/${name}`))) return dir;
  for (let up = parent(dir); ; up = parent(up)) {
    if (workspacePackages(openApp(files, up)).includes(dir)) return up;
    if (up === '.') return dir;
  }
}

const parent = (dir: string) => (dir.includes('/') ? dir.slice(0, dir.lastIndexOf('/')) : '.');

/** Workspace packages that `dir` depends on, themselves built first, in build order. */
export function localDependencies(files: SourceFiles, top: App, dir: string): string[] {
  const byName = new Map<string, string>();
  for (const one of workspacePackages(top)) {
    const name = stringAt(openApp(files, one).json('package.json'), 'name');
    if (name) byName.set(name, one);
  }
  const order: string[] = [];
  const seen = new Set([dir]);
  const visit = (at: string): void => {
    const manifest = openApp(files, at).json('package.json');
    const names = ['dependencies', 'devDependencies']
      .flatMap((key) => Object.keys(tableAt(manifest, key)))
      .sort();
    for (const name of names) {
      const found = byName.get(name);
      if (!found || seen.has(found)) continue;
      seen.add(found);
      visit(found);
      order.push(found);
    }
  };
  visit(dir);
  return order;
}
