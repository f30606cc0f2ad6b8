/** Node: servers and sites described by package.json, and lone server files. */
import { leftOutFolder, takeBackIn } from '../../domain/left-out.ts';
import type { Evidence } from '../../domain/plan.ts';
import { quote } from '../quote.ts';
import { type App, openApp } from './app.ts';
import { type Detection, type Detector, detection, type Stuck } from './detector.ts';
import { healthRoute } from './health.ts';
import { buildCommands, buildEvidence } from './node/build.ts';
import type { FrameworkPlan } from './node/framework.ts';
import { frameworksOf, serverLibrary } from './node/frameworks.ts';
import { fixedNodePort, listenEverywhere, loopbackWarnings } from './node/listening.ts';
import { nxAbove, nxProject } from './node/nx.ts';
import { binPath, type NodePackage, nodePackage, nodeVersion } from './node/package.ts';
import {
  type BuildStep,
  entryFile,
  listens,
  mainOf,
  runFile,
  type Start,
  scriptCommand,
  servedFolder,
  servesItself,
  startScript,
} from './node/start.ts';
import { workspacePackages, workspacePatterns } from './node/workspace.ts';
import { type FixedPort, fixedPortNotes, portInCommand } from './port.ts';
import { siteFolder } from './static.ts';

/** What only the folder of an app has. */
const APP_FILES =
  'index.html src app pages server.js index.js angular.json .vitepress docs/.vitepress .eleventy.js'.split(
    ' ',
  );
const APP_CONFIG =
  /^(?:next|nuxt|astro|svelte|vite|vue|react-router|remix|gatsby|docusaurus|eleventy|webpack)[.-]config\.[cm]?[jt]s$/;

/** A lone server.js may as well be a script for browsers; this cannot. */
const USES_NET = /['"](?:node:)?(?:http|https|http2|net)['"]/;

export const node: Detector = {
  name: 'node',
  looks_for: ['package.json', 'server.js'],
  detect: (app) => {
    const pkg = nodePackage(app);
    if (!pkg) return app.exists('package.json') ? null : (projectOfNx(app) ?? detectFile(app));
    const found = detectNx(pkg);
    if (found) return found;
    const member = holdsOnlyMembers(pkg) ? detectMember(pkg) : null;
    return member ?? detectPackage(pkg) ?? detectMember(pkg) ?? projectOfNx(app) ?? stuck(pkg);
  },
};

/**
 * A workspace root may list what its members use; it is an app itself only when it has something to run or to build
 * from. `npm run build` of such a root builds every member.
 */
function holdsOnlyMembers(pkg: NodePackage): boolean {
  return (
    workspacePatterns(pkg.app).length > 0 &&
    startScript(pkg) === null &&
    servedFolder(pkg) === null &&
    pkg.app.entrypoint === null &&
    !APP_FILES.some((name) => pkg.app.exists(name)) &&
    !pkg.app.list().some(({ name }) => APP_CONFIG.test(name))
  );
}

/** The folder is a project of an Nx workspace above it, and that is where it is built. */
function projectOfNx(app: App): Detection | Stuck | null {
  const above = nxAbove(app);
  const pkg = above && nodePackage(above);
  return pkg ? detectNx(pkg) : null;
}

/** The application of an Nx workspace that keeps one package.json for all. */
function detectNx(pkg: NodePackage): Detection | Stuck | null {
  const found = nxProject(pkg.app);
  if (!found || 'stuck' in found) return found;
  // The scripts of the root start and build whatever Nx thinks best; the chosen application is meant.
  const whole = { ...pkg, scripts: new Map<string, string>() };
  const notes = { evidence: [...pkg.manager.evidence, ...found.evidence], warnings: pkg.manager.warnings };
  if (found.kind === 'static') return siteDetection(whole, found, notes, []);
  const start = {
    command: found.start!,
    entry: null,
    node_version: null,
    builds: [],
    evidence: [],
    warnings: [],
  };
  return serverDetection(whole, start, found, notes);
}

/** One package as an app of its own; null when nothing in it says how to run or serve it. */
function detectPackage(pkg: NodePackage): Detection | Stuck | null {
  const [found, ...others] = frameworksOf(pkg);
  const framework = found && 'framework' in found.result ? found.result : null;
  const start = ownServer(pkg, framework);
  if (found && !framework && !start && 'stuck' in found.result) {
    return { ...found.result, evidence: [dependency(pkg, found.package, `the framework is ${found.rule}`)] };
  }
  const evidence = [
    ...pkg.manager.evidence,
    ...(found ? [dependency(pkg, found.package, `the framework is ${found.rule}`)] : []),
    ...(framework?.evidence ?? []),
  ];
  const of = { evidence, warnings: [...pkg.manager.warnings, ...(framework?.warnings ?? [])] };
  if (start) return serverDetection(pkg, start, framework, of);
  if (framework?.kind === 'dynamic' && framework.start) {
    const own: Start = {
      command: framework.start,
      entry: null,
      node_version: null,
      builds: [],
      evidence: [],
      warnings: [],
    };
    return serverDetection(pkg, own, framework, of);
  }
  if (framework) {
    // Vite is what most of them build with.
    const lost = others
      .map(({ rule }) => rule)
      .filter((rule) => rule !== framework.framework && rule !== 'vite');
    return siteDetection(pkg, framework, of, lost);
  }
  const served = servedFolder(pkg);
  if (!served) return itself(pkg);
  const follows = `the folder ${served.folder} is a site`;
  of.evidence.push(
    pkg.app.evidence(
      'package.json',
      `script "${served.script}" serves ${served.folder}`,
      follows,
      `"${served.script}":`,
    ),
  );
  const spa_fallback = served.spa ? 'index.html' : null;
  return siteDetection(
    pkg,
    { framework: '', kind: 'static', build: null, output: served.folder, spa_fallback },
    of,
    [],
  );
}

/** `serve .`: a site beside its package.json, which is never served. */
function itself(pkg: NodePackage): Stuck | null {
  const script = servesItself(pkg);
  if (script === null) return null;
  const to = pkg.scripts.has('build') ? 'Let the build write' : 'Move';
  return {
    stuck: `The script "${script}" serves the whole folder, package.json and packages with it, and those are never published as files.`,
    next_step: `${to} what is public into a folder such as public, and serve that one (\`serve public\`).`,
    evidence: [
      pkg.app.evidence('package.json', 'a file server for the whole folder', 'no plan', `"${script}":`),
    ],
  };
}

/** The app's own server, if it has one: in front of a framework's only when it is more than that framework's command. */
function ownServer(pkg: NodePackage, framework: FrameworkPlan | null): Start | null {
  const script = startScript(pkg);
  if (pkg.app.entrypoint && !pkg.app.entrypoint.endsWith('.html')) {
    const entry = entryFile(pkg.app, null, true);
    if (entry === pkg.app.entrypoint) return runFile(pkg, entry);
  }
  if (framework) {
    if (!script) return null;
    const runs_file = /^(?:cross-env\s+)?(?:\w+=\S+\s+)*(?:node|tsx|ts-node|bun|nodemon)\s/.test(script.text);
    // `vite` with a start script "node server.js" is a server; "next start" is what the framework's rule does better.
    return runs_file && (framework.kind === 'static' || isCustomServer(pkg, script.text))
      ? scriptCommand(pkg, script.name)
      : null;
  }
  if (script && /^(start|start:.*)$/.test(script.name)) return scriptCommand(pkg, script.name);
  const library = serverLibrary(pkg);
  const entry = entryFile(pkg.app, mainOf(pkg), library !== null);
  if (entry && !isHandler(pkg, entry)) return runFile(pkg, entry);
  return script ? scriptCommand(pkg, script.name) : null;
}

/** `export default app` of Hono is for a host that calls it (Workers, Vercel); only Bun and Deno listen for it. */
const isHandler = (pkg: NodePackage, entry: string): boolean =>
  pkg.dependencies.has('hono') &&
  pkg.manager.name !== 'bun' &&
  !pkg.dependencies.has('@hono/node-server') &&
  !listens(pkg.app, entry) &&
  pkg.app.search([entry], /^export default\b/) !== null;

/** `node server.js` is the app's; `node .output/server/index.mjs` and `node build` are the framework's. */
function isCustomServer(pkg: NodePackage, text: string): boolean {
  const file = /\s((?:\.\/)?[\w@./-]+)\s*$/.exec(text)?.[1];
  return (
    file !== undefined && !/^(?:\.\/)?(?:\.output|\.next|build|dist)\b/.test(file) && pkg.app.exists(file)
  );
}

interface Notes {
  evidence: Evidence[];
  warnings: string[];
}

function serverDetection(
  pkg: NodePackage,
  start: Start,
  framework: FrameworkPlan | null,
  notes: Notes,
): Detection {
  const library = serverLibrary(pkg);
  const code = [
    ...new Set([
      ...(start.entry ? [start.entry] : []),
      ...pkg.app.code(['js', 'mjs', 'cjs', 'ts', 'mts'], 3),
    ]),
  ];
  const port =
    framework?.kind === 'dynamic' && framework.framework !== 'nest'
      ? null
      : (portInStart(pkg, start) ?? fixedNodePort(pkg.app, code));
  const fixed = fixedPortNotes(pkg.app, port);
  const health = framework?.kind === 'dynamic' ? null : healthRoute(pkg.app, code);
  const name = framework?.kind === 'dynamic' ? framework.framework : (library?.framework ?? null);
  const toolchain = nodeVersion(pkg);
  return detection({
    ...shared(pkg, framework, start.builds),
    framework: name,
    kind: 'dynamic',
    start: `${binPath(pkg)}; ${start.command}`,
    port: fixed.port,
    health_check_path: health?.path ?? null,
    run_env: {
      NODE_ENV: 'production',
      ...listenEverywhere(pkg.app, start.entry, pkg.dependencies),
      ...(framework?.run_env ?? {}),
    },
    toolchains: [{ ...toolchain, version: toolchain.version ?? start.node_version }],
    evidence: [
      ...notes.evidence,
      ...(library && name === library.framework
        ? [dependency(pkg, library.package, 'this is an HTTP server')]
        : []),
      ...buildEvidence(pkg),
      ...start.evidence,
      ...fixed.evidence,
      ...(health ? [health.evidence] : []),
    ],
    would_change: [
      'Another "start" script in package.json, or run_command, starts something else.',
      'kind = "static" with output_path serves the built files without a server.',
    ].slice(0, !framework && pkg.scripts.has('build') ? 2 : 1),
    warnings: [
      ...notes.warnings,
      ...start.warnings,
      ...fixed.warnings,
      ...loopbackWarnings(pkg.app, start.entry),
    ],
  });
}

/** `PORT=3000 node server.js` as a script. */
function portInStart(pkg: NodePackage, { command }: Start): FixedPort | null {
  const port = portInCommand(command);
  const line = port === null ? null : pkg.app.line('package.json', new RegExp(`\\b${port}\\b`));
  return port === null || line === null ? null : { port, file: 'package.json', line };
}

function siteDetection(pkg: NodePackage, site: FrameworkPlan, notes: Notes, lost: string[]): Detection {
  return detection({
    ...shared(pkg, site, []),
    framework: site.framework || null,
    kind: 'static',
    output: site.output ?? 'dist',
    spa_fallback: site.spa_fallback ?? null,
    evidence: [...notes.evidence, ...buildEvidence(pkg)],
    would_change: [
      `output_path serves another folder than ${site.output ?? 'dist'}.`,
      'A "start" script that runs a server file, or run_command, makes it a server.',
    ],
    warnings: [
      ...notes.warnings,
      ...(lost.length > 0 ? [`Also depends on ${lost.join(', ')}, which does not decide here.`] : []),
    ],
  });
}

/** What a server and a site of this package have in common: install, build, tools. */
function shared(pkg: NodePackage, framework: FrameworkPlan | null, builds: BuildStep[]) {
  const at_top = (command: string) => (pkg.to_top === '.' ? command : `cd ${pkg.to_top} && ${command}`);
  const quiet: Record<string, string> = framework?.framework === 'create-react-app' ? {} : { CI: 'true' };
  return {
    ecosystem: 'node',
    root: pkg.app.root,
    setup: binPath(pkg),
    install: [...pkg.manager.install.map(at_top), ...(framework?.extra_install ?? [])],
    build: buildCommands(pkg, framework, builds),
    build_env: { ...quiet, ...pkg.manager.build_env, ...(framework?.build_env ?? {}) },
    toolchains: [nodeVersion(pkg)],
  };
}

const dependency = (pkg: NodePackage, name: string, follows: string): Evidence =>
  pkg.app.evidence('package.json', `depends on ${name}`, follows, `"${name}":`);

/** In a workspace whose root is no app: the one member that is, or the one that is a server. */
function detectMember(pkg: NodePackage): Detection | Stuck | null {
  const apps: { dir: string; member: NodePackage; server: boolean }[] = [];
  for (const dir of workspacePackages(pkg.app)) {
    const member = nodePackage(openApp(pkg.app.files, dir), pkg.app);
    const result = member && frameworksOf(member)[0]?.result;
    // A package that others import has neither; looking for its entry file would find one all the same.
    if (!member || (!startScript(member) && !result)) continue;
    const server =
      startScript(member) !== null || (result != null && 'kind' in result && result.kind === 'dynamic');
    apps.push({ dir, member, server });
  }
  const servers = apps.filter(({ server }) => server);
  const chosen = apps.length === 1 ? apps[0] : servers.length === 1 ? servers[0] : null;
  if (apps.length === 0) return null;
  if (!chosen) {
    const dirs = apps.map(({ dir }) => dir);
    const shown = dirs.slice(0, 20).join(', ') + (dirs.length > 20 ? ', …' : '');
    return {
      stuck: `This workspace holds ${apps.length} apps: ${shown}.`,
      next_step: `Say which one to publish, for example root = "${dirs[0]}".`,
      evidence: [],
    };
  }
  const found = detectPackage(chosen.member);
  if (!found) return null;
  const why = apps.length === 1 ? 'the only app of the workspace' : 'the only server of the workspace';
  const file = pkg.app.first('pnpm-workspace.yaml') ?? 'package.json';
  const what = `workspace member ${chosen.dir}`;
  const evidence = [
    pkg.app.evidence(file, what, `published: ${why}`, /^packages:|"workspaces":/),
    ...found.evidence,
  ];
  if ('stuck' in found) return { ...found, evidence };
  const others = apps.filter((one) => one !== chosen).slice(0, 20);
  const would_change = others.map(({ dir }) => `root = "${dir}" publishes that app instead.`);
  return { ...found, evidence, would_change: [...would_change, ...found.would_change] };
}

function stuck(pkg: NodePackage): Stuck {
  const entry = entryFile(pkg.app, mainOf(pkg), serverLibrary(pkg) !== null);
  if (entry && isHandler(pkg, entry)) {
    return {
      stuck: `${entry} only exports its Hono app, for a host that calls it; nothing in it listens.`,
      next_step:
        'Add @hono/node-server, call its `serve({ fetch: app.fetch, port })` with the port in PORT, and name that file in a "start" script.',
      evidence: [pkg.app.evidence(entry, 'export default', 'not a server by itself', /^export default\b/)],
    };
  }
  const main = mainOf(pkg);
  const folder = main === null || pkg.app.exists(main) ? null : leftOutFolder(main);
  if (folder !== null) {
    return {
      stuck: `package.json names ${main} as its main file, but the source has no ${folder}, and nothing says how to build or start it.`,
      next_step: `${takeBackIn(folder)} Or give run_command.`,
      evidence: [pkg.app.evidence('package.json', `main: ${main}`, 'no plan', '"main"')],
    };
  }
  const site = siteFolder(pkg.app) ?? (pkg.app.exists('docs/index.html') ? 'docs' : null);
  const start = pkg.scripts.get('start');
  return {
    stuck:
      start === undefined
        ? 'package.json is there, but nothing says how to start a server or which folder a build writes.'
        : `The "start" script of package.json is for development (${start.slice(0, 60)}), and nothing says how to start a server or which folder a build writes.`,
    next_step:
      site === null || site === '.'
        ? `${start === undefined ? 'Add a "start" script, or give' : 'Give'} run_command for a server, or build_command and output_path for a site.`
        : `Give output_path = "${site}" to serve the files in ${site} as they are, build_command too if they have to be built, or run_command (or a "start" script) for a server.`,
    evidence: [pkg.app.evidence('package.json', 'no start script, no known framework', 'no plan')],
  };
}

/** A server file without a package.json: it needs nothing but Node. */
function detectFile(app: App): Detection | null {
  const entry = entryFile(app, null, false);
  if (!entry || entry.includes('/') || !app.search([entry], USES_NET)) return null;
  const fixed = fixedPortNotes(app, fixedNodePort(app, [entry]));
  const typescript = /\.[cm]?ts$/.test(entry);
  return detection({
    ecosystem: 'node',
    kind: 'dynamic',
    start: `exec node ${quote(entry)}`,
    port: fixed.port,
    run_env: { NODE_ENV: 'production' },
    toolchains: [{ name: 'node', version: typescript ? '>=22.18.0' : null, source: null }],
    evidence: [app.evidence(entry, `${entry} listens`, 'the server starts here'), ...fixed.evidence],
    warnings: fixed.warnings,
  });
}
