/** Nx workspaces whose projects have a project.json instead of a package.json each: one package.json for all. */
import type { Evidence } from '../../../domain/plan.ts';
import { cleanPath } from '../../files.ts';
import { stringAt, type Table, tableAt } from '../../manifest.ts';
import { quote } from '../../quote.ts';
import type { App } from '../app.ts';
import type { Stuck } from '../detector.ts';
import type { FrameworkPlan } from './frameworks.ts';

const FOLDERS = ['apps', 'packages', 'projects', '.'];
const MAX_PROJECTS = 100;
/** What these executors build runs in Node; the others make files for browsers. */
const FOR_NODE = /^@nx\/(?:node|nest|esbuild|js|webpack):/;

interface Project {
  file: string;
  dir: string;
  name: string;
  build: Table;
}

/** The one application of the workspace, as a framework's plan; null when this is no such workspace. */
export function nxProject(app: App): (FrameworkPlan & { evidence: Evidence[] }) | Stuck | null {
  if (!app.exists('nx.json')) return null;
  const projects = applications(app);
  if (projects.length === 0) return null;
  const chosen =
    projects.find(({ file, dir }) => file === app.entrypoint || dir === app.entrypoint) ??
    (projects.length === 1 ? projects[0]! : null);
  if (!chosen) {
    return {
      stuck: `This Nx workspace holds ${projects.length} applications: ${projects.map(({ dir }) => dir).join(', ')}.`,
      next_step: `Name the one to publish, for example entrypoint = "${projects[0]!.file}".`,
      evidence: [],
    };
  }
  const { file, dir, name, build } = chosen;
  const executor = stringAt(build, 'executor') ?? '';
  const options = tableAt(build, 'options');
  const folder = cleanPath(stringAt(options, 'outputPath') ?? `dist/${dir}`) ?? 'dist';
  const shared = {
    framework: 'nx',
    build: `nx build ${quote(name)} --skip-nx-cache`,
    build_env: { NX_DAEMON: 'false', NX_NO_CLOUD: 'true' },
  };
  const found = `application ${name}, built with ${executor || 'its build target'}`;
  if (/^@nx\/next:/.test(executor)) {
    const follows = 'this is a Next server';
    const start = `cd ${quote(folder)} && exec next start -H 0.0.0.0 -p "$PORT"`;
    return {
      ...shared,
      kind: 'dynamic',
      start,
      evidence: [app.evidence(file, found, follows, '"executor"')],
    };
  }
  if (FOR_NODE.test(executor) && stringAt(options, 'target') !== 'web') {
    const main = (stringAt(options, 'outputFileName') ?? 'main.js').replace(/\.ts$/, '.js');
    const start = `exec node ${quote(`${folder}/${main}`)}`;
    const follows = `this is a server: ${folder}/${main}`;
    return {
      ...shared,
      kind: 'dynamic',
      start,
      evidence: [app.evidence(file, found, follows, '"executor"')],
    };
  }
  const output = /:application$/.test(executor) ? `${folder}/browser` : folder;
  const evidence = [app.evidence(file, found, `the build writes ${output}`, '"executor"')];
  return { ...shared, kind: 'static', output, spa_fallback: 'index.html', evidence };
}

/** Projects that are applications with a build, without those that only hold tests. */
function applications(app: App): Project[] {
  const files = FOLDERS.flatMap((folder) =>
    app
      .list(folder)
      .filter(({ type }) => type === 'dir')
      .map(({ name }) => cleanPath(`${folder}/${name}/project.json`)!),
  );
  return files.slice(0, MAX_PROJECTS).flatMap((file) => {
    const manifest = app.exists(file) ? app.jsonc(file) : null;
    const build = tableAt(manifest, 'targets', 'build');
    if (manifest?.projectType !== 'application' || Object.keys(build).length === 0) return [];
    const dir = file.slice(0, file.lastIndexOf('/'));
    return [{ file, dir, name: stringAt(manifest, 'name') ?? dir.split('/').at(-1)!, build }];
  });
}
