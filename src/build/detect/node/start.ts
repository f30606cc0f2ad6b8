/** How a Node server starts: its start script without the package manager around it, or the file it begins with. */
import type { Evidence } from '../../../domain/plan.ts';
import { cleanPath } from '../../files.ts';
import { stringAt } from '../../manifest.ts';
import { quote } from '../../quote.ts';
import type { App } from '../app.ts';
import type { NodePackage } from './package.ts';
import { callsManager } from './package-manager.ts';

export interface Start {
  command: string;
  /** The file it runs, when that is plain to see. */
  entry: string | null;
  /** Node runs TypeScript by itself from this version on. */
  node_version: string | null;
  /** What the script builds before it starts; done once, in the build. */
  builds: BuildStep[];
  evidence: Evidence[];
  warnings: string[];
}

/** A script of the package, or a command line. */
export type BuildStep = { script: string } | { command: string };

/** Servers for people at work on the app; what they show is built by `build` and served as files. */
const DEVELOPMENT =
  /^(?:cross-env\s+)?(?:\w+=\S+\s+)*(?:npx\s+)?(?:vite(?!-node)|react-scripts|react-app-rewired|craco|vue-cli-service|ng|astro|gatsby|eleventy|@11ty\/eleventy|docusaurus|vuepress|vitepress|parcel|webpack|webpack-dev-server|snowpack|live-server|browser-sync|hexo|gridsome|expo|ember|stencil|quasar|storybook|start-storybook|next\s+dev|nuxt\s+dev|nuxi\s+dev|remix\s+dev|remix\s+vite:dev|react-router\s+dev|svelte-kit|wrangler|vercel|netlify|firebase|turbo|nx|lerna|concurrently|echo)(?:\s|$)/;
/** `serve -s dist`: the author wants this folder served. */
const FILE_SERVER =
  /^(?:npx\s+(?:-y\s+|--yes\s+)?)?(?:serve|http-server|sirv|sirv-cli|live-server)(?:@\S+)?((?:\s+[^\s;&|]+)*)\s*$/;
/** Options of these programs whose value is a word of its own. */
const WITH_VALUE = /^(?:-[lpacHPt]|--(?:listen|port|host|address|config|proxy|open|mount|watch|ignore))$/;

const has = (app: App, path: string | null): path is string => path !== null && app.exists(path);

/** The script that starts the server in production; null when there is none. */
export function startScript(pkg: NodePackage): { name: string; text: string } | null {
  for (const name of ['start:prod', 'start:production', 'start', 'serve:prod', 'server', 'serve']) {
    const text = pkg.scripts.get(name)?.trim();
    if (!text || DEVELOPMENT.test(text) || servedBy(text) !== null) continue;
    // "start" is the convention; the others count only when it is a development server or not there.
    const start = pkg.scripts.get('start')?.trim() ?? '';
    if (
      name.startsWith('start:') &&
      start !== '' &&
      !/\b(dev|watch|nodemon|ts-node|tsx|nest start)\b/.test(start)
    )
      continue;
    return { name, text };
  }
  return null;
}

/** The folder that a script serves with a file server; null when none does. */
export function servedFolder(pkg: NodePackage): { folder: string; spa: boolean; script: string } | null {
  for (const script of ['start', 'serve', 'preview']) {
    const text = pkg.scripts.get(script)?.trim() ?? '';
    const folder = servedBy(text);
    if (folder && folder !== '.') return { folder, spa: /\s(-s|--single)\b/.test(text), script };
  }
  return null;
}

/** The script with which the author serves the package's own folder, start page and all. */
export function servesItself(pkg: NodePackage): string | null {
  if (!pkg.app.exists('index.html')) return null;
  const scripts = ['start', 'serve', 'preview', 'dev'];
  return scripts.find((name) => servedBy(pkg.scripts.get(name)?.trim() ?? '') === '.') ?? null;
}

/** The folder that a command line serves; null when it is no file server. */
function servedBy(text: string): string | null {
  const words = FILE_SERVER.exec(text)?.[1];
  if (words === undefined) return null;
  let option = '';
  for (const word of words.split(/\s+/).filter(Boolean)) {
    const is_value = WITH_VALUE.test(option);
    option = word.startsWith('-') ? word : '';
    if (option === '' && !is_value) return cleanPath(word);
  }
  return '.';
}

/** A script as one command line that needs no package manager at run time, as far as that can be had. */
export function scriptCommand(pkg: NodePackage, name: string): Start {
  const parts = [`pre${name}`, name, `post${name}`]
    .map((one) => pkg.scripts.get(one)?.trim())
    .filter(Boolean);
  const warnings: string[] = [];
  const { builds, rest } = withoutBuilds(pkg, parts.join(' && '));
  if (builds.length > 0)
    warnings.push(`The script "${name}" builds each time it starts; that is done once, in the build.`);
  let command = rest.replace(
    /(^|[\s;&|(])(?:pnpm|yarn|bun)\s+(?:run\s+)?([\w:.-]+)/g,
    (all, before, script) => (pkg.scripts.has(script) ? `${before}npm run ${script}` : all),
  );
  if (/(^|\s)nodemon\s/.test(command)) {
    command = command.replace(
      /(^|\s)nodemon\s+(?:(?:-w|--watch|-e|--ext|-i|--ignore)\s+\S+\s+|-q\s+)*(?=[\w./-]+\.[cm]?js\b)/,
      '$1node ',
    );
    warnings.push(
      `The script "${name}" uses nodemon, which is for development; the server is started without it.`,
    );
  }
  if (callsManager(command) && pkg.manager.name !== 'bun') {
    command = `${pkg.manager.command} run ${quote(name)}`;
    warnings.push(
      `The script "${name}" needs ${pkg.manager.name} while the app runs; let it call the program itself.`,
    );
  }
  const simple =
    /^(?:exec\s+)?(?:node|tsx|ts-node|bun(?:\s+run)?)\s+(?:-[\w=/.-]+\s+)*([\w@./-]+)(?:\s|$)/.exec(command);
  if (simple && !/[;&|\n]/.test(command)) command = command.replace(/^(exec\s+)?/, 'exec ');
  const shown = pkg.scripts.get(name)!.slice(0, 120);
  return {
    command,
    entry: sourceOf(pkg.app, simple?.[1] ?? null),
    node_version: null,
    builds,
    evidence: [
      pkg.app.evidence('package.json', `script "${name}": ${shown}`, 'this starts the server', `"${name}":`),
    ],
    warnings,
  };
}

/** `npm run build && node dist/main.js`, `tsc && node .`: the steps that only build, and what is left to start. */
function withoutBuilds(pkg: NodePackage, line: string): { builds: BuildStep[]; rest: string } {
  const builds: BuildStep[] = [];
  let rest = line;
  for (;;) {
    const head = /^((?:npx\s+)?(\S+)(?:\s+run)?\s*([^\s&|;<>()]*)[^&|;<>()]*?)\s*&&\s*(\S[\s\S]*)$/.exec(
      rest,
    );
    if (!head) return { builds, rest };
    const [, command, program, script, after] = head;
    if (
      /^(?:npm|pnpm|yarn|bun)$/.test(program!) &&
      /^(?:build|compile)/.test(script!) &&
      pkg.scripts.has(script!)
    )
      builds.push({ script: script! });
    else if (/^(?:tsc|tsup|swc|esbuild|rollup)$/.test(program!)) builds.push({ command: command! });
    else return { builds, rest };
    rest = after!;
  }
}

/** The file in the source that a command's file is, or is built from. */
function sourceOf(app: App, file: string | null): string | null {
  if (file === null) return null;
  const bare = cleanPath(file)?.replace(/\.[cm]?js$/, '') ?? '';
  const inner = bare.replace(/^(?:dist|build|out|lib)\//, '');
  const names = [...new Set([bare, inner, `src/${inner}`])];
  return app.first(
    ...names
      .flatMap((name) => [name, ...[...CODE].map((extension) => `${name}.${extension}`)])
      .filter(Boolean),
  );
}

const CODE = ['js', 'mjs', 'cjs', 'ts', 'mts', 'cts'];
const LISTENS = /\.listen\s*\(|createServer\s*\(|\bserve\s*\(|Bun\.serve|Deno\.serve|\.startServer\s*\(/;

/** Does something in the file listen? */
export const listens = (app: App, file: string): boolean => app.search([file], LISTENS) !== null;

/** The file a server begins with: the setting, `main`, or a usual name that is there and listens. */
export function entryFile(app: App, main: string | null, is_server: boolean): string | null {
  if (has(app, app.entrypoint) && CODE.includes(app.entrypoint.slice(app.entrypoint.lastIndexOf('.') + 1)))
    return app.entrypoint;
  const named = main === null ? null : cleanPath(main);
  const listed = ['server', 'index', 'app', 'main'].flatMap((name) =>
    ['', 'src/', 'server/', 'src/server/', 'api/'].flatMap((dir) =>
      CODE.map((extension) => `${dir}${name}.${extension}`),
    ),
  );
  const candidates = [
    ...new Set([...(named ? [named, `${named}.js`, `${named}/index.js`] : []), ...listed]),
  ].filter((path) => app.exists(path) && app.read(path) !== null);
  const listening = candidates.find((path) => app.search([path], LISTENS));
  return listening ?? (is_server ? (candidates[0] ?? null) : null);
}

/** How a file is run: by Node, or by what the package brings to run TypeScript. */
export function runFile(pkg: NodePackage, entry: string): Start {
  const typescript = /\.[cm]?ts$/.test(entry);
  const shown = `${typescript ? 'TypeScript' : 'JavaScript'} file ${entry}`;
  const evidence = [pkg.app.evidence(entry, shown, 'the server starts here', LISTENS)];
  const file = quote(entry);
  const start = (command: string, more: Partial<Start> = {}): Start => ({
    command: `exec ${command}`,
    entry,
    node_version: null,
    builds: [],
    evidence,
    warnings: [],
    ...more,
  });
  if (pkg.manager.name === 'bun') return start(`bun ${file}`);
  if (!typescript) return start(`node ${file}`);
  if (pkg.dependencies.has('tsx')) return start(`tsx ${file}`);
  if (pkg.dependencies.has('ts-node')) return start(`ts-node ${file}`);
  return start(`node ${file}`, {
    node_version: '>=22.18.0',
    warnings: [
      `Node runs ${entry} by leaving out the types; enums and path aliases need the package tsx or a build script.`,
    ],
  });
}

/** `main` of package.json. */
export const mainOf = (pkg: NodePackage): string | null => stringAt(pkg.manifest, 'main');
