/** One package.json with what belongs to it: scripts, dependencies, its workspace root and package manager. */
import type { Toolchain } from '../../../domain/plan.ts';
import { isTable, stringAt, type Table, tableAt } from '../../manifest.ts';
import { type App, openApp, versionFile } from '../app.ts';
import { type PackageManager, packageManager } from './package-manager.ts';
import { workspaceTop } from './workspace.ts';

export interface NodePackage {
  app: App;
  manifest: Table;
  /** Script name to command line. */
  scripts: ReadonlyMap<string, string>;
  /** Every dependency, development ones too, to its range. */
  dependencies: ReadonlyMap<string, string>;
  /** The workspace root this package belongs to; the package itself when it stands alone. */
  top: App;
  /** Relative path from the package to `top`: '.', '..', '../..'. */
  to_top: string;
  manager: PackageManager;
}

const texts = (table: Table): [string, string][] =>
  Object.entries(table).filter((entry): entry is [string, string] => typeof entry[1] === 'string');

/** The package in the app's folder, a member of workspace `of` when that is known; null without a package.json. */
export function nodePackage(app: App, of: App | null = null): NodePackage | null {
  const manifest = app.json('package.json');
  if (!manifest) return null;
  const top_dir = of?.root ?? workspaceTop(app.files, app.root);
  const top = of ?? (top_dir === app.root ? app : openApp(app.files, top_dir));
  const depth = depthOf(app.root) - depthOf(top_dir);
  return {
    app,
    manifest,
    scripts: new Map(texts(tableAt(manifest, 'scripts'))),
    dependencies: new Map([
      ...texts(tableAt(manifest, 'devDependencies')),
      ...texts(tableAt(manifest, 'optionalDependencies')),
      ...texts(tableAt(manifest, 'dependencies')),
    ]),
    top,
    to_top: depth === 0 ? '.' : Array(depth).fill('..').join('/'),
    manager: packageManager(top),
  };
}

const depthOf = (dir: string) => (dir === '.' ? 0 : dir.split('/').length);

/** Makes the installed programs findable, also those a workspace keeps at its root. */
export function binPath(pkg: NodePackage): string {
  const folders = ['node_modules/.bin'];
  if (pkg.to_top !== '.') folders.push(`${pkg.to_top}/node_modules/.bin`);
  if (pkg.manager.name === 'bun')
    folders.push(`${pkg.to_top === '.' ? '' : `${pkg.to_top}/`}.kiln/runtime/node_modules/.bin`);
  return `export PATH="${folders.map((folder) => `$PWD/${folder}:`).join('')}$PATH"`;
}

/** The Node version the app asks for: version files first, as version managers do, then engines. */
export function nodeVersion(pkg: NodePackage): Toolchain {
  for (const app of new Set([pkg.app, pkg.top])) {
    const manifest = app.json('package.json') ?? {};
    const found =
      versionFile(app, 'node', '.nvmrc', '.node-version') ??
      app.pinned('node') ??
      of(stringAt(manifest, 'volta', 'node'), 'package.json') ??
      of(stringAt(manifest, 'engines', 'node'), 'package.json') ??
      of(devEngine(manifest), 'package.json');
    if (found) return found;
  }
  return { name: 'node', version: null, source: null };
}

const of = (version: string | null, source: string): Toolchain | null =>
  version === null ? null : { name: 'node', version, source };

function devEngine(manifest: Table): string | null {
  const runtime = tableAt(manifest, 'devEngines').runtime;
  for (const one of Array.isArray(runtime) ? runtime : [runtime]) {
    if (isTable(one) && one.name === 'node') return stringAt(one, 'version');
  }
  return null;
}
