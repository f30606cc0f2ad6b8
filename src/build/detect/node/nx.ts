/**
 * Nx workspaces whose projects have no scripts of their own: a project.json, or a package.json with Nx targets or
 * nothing but a name. What such a project builds is said by its executor, or by the config file of the tool that
 * Nx infers its targets from; its dependencies are those of the workspace root.
 */
import type { Evidence } from '../../../domain/plan.ts';
import { cleanPath, joinPath } from '../../files.ts';
import { stringAt, type Table, tableAt } from '../../manifest.ts';
import { quote } from '../../quote.ts';
import { type App, openApp } from '../app.ts';
import type { Stuck } from '../detector.ts';
import type { FrameworkPlan } from './framework.ts';

const FOLDERS = ['apps', 'packages', 'projects', '.'];
const MAX_PROJECTS = 100;
const MAX_LEVELS_UP = 4;
/** What these executors build runs in Node; the others make files for browsers. */
const FOR_NODE = /^@nx\/(?:node|nest|esbuild|js|webpack):/;

interface Project {
  file: string;
  dir: string;
  name: string;
  /** What its build target says, when it is written down. */
  build: Table;
  made: Made;
}

/** What a build makes: a Next server, a Node program or a folder of files, relative to the workspace. */
type Made = { found: string } & ({ next: string } | { program: string; entry: string } | { site: string });

/** The one application of the workspace, as a framework's plan; null when this is no such workspace. */
export function nxProject(
  app: App,
): (FrameworkPlan & { evidence: Evidence[]; entry?: string }) | Stuck | null {
  if (!app.exists('nx.json')) return null;
  const projects = applications(app);
  if (projects.length === 0) return null;
  const chosen =
    projects.find(({ file, dir }) => file === app.entrypoint || dir === app.entrypoint) ??
    (projects.length === 1 ? projects[0]! : null);
  if (!chosen) {
    return {
      stuck: `This Nx workspace holds ${projects.length} applications: ${projects.map(({ dir }) => dir).join(', ')}.`,
      next_step: `Name the one to publish, for example root = "${projects[0]!.dir}".`,
      evidence: [],
    };
  }
  const { file, name, made } = chosen;
  const shared = {
    framework: 'nx',
    build: `nx build ${quote(name)} --skip-nx-cache`,
    build_env: { NX_DAEMON: 'false', NX_NO_CLOUD: 'true' },
  };
  const evidence = (follows: string) => [
    app.evidence(file, `application ${name}, built with ${made.found}`, follows, '"executor"'),
  ];
  if ('next' in made) {
    const start = `cd ${quote(made.next)} && exec next start -H 0.0.0.0 -p "$PORT"`;
    return { ...shared, kind: 'dynamic', start, evidence: evidence('this is a Next server') };
  }
  if ('program' in made) {
    const start = `exec node ${quote(made.program)}`;
    const follows = `this is a server: ${made.program}`;
    return { ...shared, kind: 'dynamic', start, entry: made.entry, evidence: evidence(follows) };
  }
  return {
    ...shared,
    kind: 'static',
    output: made.site,
    spa_fallback: 'index.html',
    evidence: evidence(`the build writes ${made.site}`),
  };
}

/** The Nx workspace above a folder that is one of its projects, with that project chosen. */
export function nxAbove(app: App): App | null {
  let dir = app.root;
  for (let level = 0; level < MAX_LEVELS_UP && dir !== '.'; level++) {
    dir = dir.includes('/') ? dir.slice(0, dir.lastIndexOf('/')) : '.';
    if (!app.files.exists(joinPath(dir, 'nx.json')!)) continue;
    const project = dir === '.' ? app.root : app.root.slice(dir.length + 1);
    return openApp(app.files, dir, project);
  }
  return null;
}

/** Projects that are applications with a build, without those that only hold tests. */
function applications(app: App): Project[] {
  const dirs = FOLDERS.flatMap((folder) =>
    app
      .list(folder)
      .filter(({ name, type }) => type === 'dir' && !/-e2e$|^node_modules$/.test(name))
      .map(({ name }) => cleanPath(`${folder}/${name}`)!),
  );
  return [...new Set(dirs)].slice(0, MAX_PROJECTS).flatMap((dir) => {
    const file = app.first(`${dir}/project.json`, `${dir}/package.json`);
    const manifest = file && app.jsonc(file);
    if (!manifest) return [];
    const own = file.endsWith('project.json');
    // A package with scripts is an app of the ordinary kind; a library has no target that serves it.
    if (own ? manifest.projectType !== 'application' : 'scripts' in manifest) return [];
    const targets = own ? tableAt(manifest, 'targets') : tableAt(manifest, 'nx', 'targets');
    const build = tableAt(targets, 'build');
    const written = Object.keys(build).length > 0 && (own || 'serve' in targets);
    const made = written ? byExecutor(dir, build) : byConfig(app, dir);
    const name =
      (own ? null : stringAt(manifest, 'nx', 'name')) ?? stringAt(manifest, 'name') ?? dir.split('/').at(-1)!;
    return made ? [{ file, dir, name, build, made }] : [];
  });
}

function byExecutor(dir: string, build: Table): Made {
  const executor = stringAt(build, 'executor') ?? '';
  const options = tableAt(build, 'options');
  const folder = cleanPath(stringAt(options, 'outputPath') ?? `dist/${dir}`) ?? 'dist';
  const found = executor || 'its build target';
  if (/^@nx\/next:/.test(executor)) return { found, next: folder };
  if (FOR_NODE.test(executor) && stringAt(options, 'target') !== 'web') {
    const main = (stringAt(options, 'outputFileName') ?? 'main.js').replace(/\.ts$/, '.js');
    const entry = stringAt(options, 'main') ?? `${dir}/src/main.ts`;
    return { found, program: `${folder}/${main}`, entry };
  }
  return { found, site: /:application$/.test(executor) ? `${folder}/browser` : folder };
}

/** A folder in quotes in a config file's line about the output; it is relative to the project. */
const OUTPUT = /\b(?:outDir|path)\b\s*:[^'"`]{0,40}['"`]([\w./-]{1,200})['"`]/;

/** Where Nx infers targets: the config of the tool that builds. Null for a library, or when none is there. */
function byConfig(app: App, dir: string): Made | null {
  const config = (name: string) =>
    app.first(...['ts', 'mts', 'js', 'mjs', 'cjs'].map((extension) => `${dir}/${name}.config.${extension}`));
  if (config('next')) return { found: config('next')!, next: dir };
  const vite = config('vite');
  const webpack = vite ? null : config('webpack');
  const file = vite ?? webpack;
  if (!file) return null;
  const output = joinPath(dir, app.search([file], OUTPUT)?.match[1] ?? 'dist') ?? `${dir}/dist`;
  // Vite builds a site from its index.html; without one it is a library.
  if (vite) return app.exists(`${dir}/index.html`) ? { found: vite, site: output } : null;
  return app.search([file], /\btarget\s*:\s*['"`]node/) !== null
    ? { found: file, program: `${output}/main.js`, entry: `${dir}/src/main.ts` }
    : { found: file, site: output };
}
