/**
 * JavaScript frameworks: what each makes of its build, a server or a folder of files. An ordered list; the first
 * whose packages are installed decides. Folders and commands of site generators come from framework-table.json.
 */
import { cleanPath } from '../../files.ts';
import { isTable, stringAt, type Table, tableAt } from '../../manifest.ts';
import { quote } from '../../quote.ts';
import {
  extensions,
  type FrameworkPlan,
  type FrameworkResult,
  folderOption,
  folderSetting,
  seen,
  setting,
} from './framework.ts';
import table from './framework-table.json' with { type: 'json' };
import type { NodePackage } from './package.ts';
import { nitro, qwik, tanstackStart } from './server-frameworks.ts';
import { vite, vitepress } from './vite.ts';

interface Rule {
  id: string;
  packages: string[];
  plan: (pkg: NodePackage) => FrameworkResult;
}

const script = (pkg: NodePackage, name: string) => pkg.scripts.get(name) ?? '';

function next(pkg: NodePackage): FrameworkResult {
  const build_env = { NEXT_TELEMETRY_DISABLED: '1' };
  const shared = { framework: 'next', build: 'next build', build_env, run_env: build_env };
  const output = setting(pkg, 'next.config', /\boutput\s*:\s*['"](export|standalone)['"]/);
  // The cache speeds up the next build in the same folder; in a release it is only weight.
  const after_build = ['rm -rf .next/cache'];
  if (output?.match[1] === 'export' || /\bnext export\b/.test(script(pkg, 'build'))) {
    const folder = folderSetting(pkg, 'next.config', 'distDir') ?? 'out';
    const evidence = output ? [seen(pkg, output, 'the build writes a static site')] : [];
    return { ...shared, kind: 'static', output: folder, evidence };
  }
  if (output) {
    // Next puts the server below the path from the workspace root to the app.
    const inner =
      pkg.to_top === '.' ? '' : `${pkg.app.root.slice(pkg.top.root === '.' ? 0 : pkg.top.root.length + 1)}/`;
    const home = quote(`.next/standalone/${inner}`.replace(/\/$/, ''));
    return {
      ...shared,
      kind: 'dynamic',
      after_build: [
        ...after_build,
        `mkdir -p ${home}/.next && cp -R .next/static ${home}/.next/ && if [ -d public ]; then cp -R public ${home}/; fi`,
      ],
      start: `exec node ${home}/server.js`,
      run_env: { ...build_env, HOSTNAME: '0.0.0.0' },
      evidence: [seen(pkg, output, 'the build writes a server with only the packages it needs')],
    };
  }
  return { ...shared, kind: 'dynamic', after_build, start: 'exec next start -H 0.0.0.0 -p "$PORT"' };
}

function nuxt(pkg: NodePackage): FrameworkResult {
  const build_env = { NUXT_TELEMETRY_DISABLED: '1' };
  const generates = /\bnuxi? generate\b/.test(script(pkg, 'build'));
  const spa = setting(pkg, 'nuxt.config', /\bssr\s*:\s*false\b/);
  if (generates || spa) {
    return {
      framework: 'nuxt',
      kind: 'static',
      build: 'nuxt generate',
      output: '.output/public',
      spa_fallback: spa ? '200.html' : null,
      build_env,
      evidence: spa ? [seen(pkg, spa, 'pages are made in the browser: a static site')] : [],
    };
  }
  return {
    framework: 'nuxt',
    kind: 'dynamic',
    build: 'nuxt build',
    start: 'exec node .output/server/index.mjs',
    build_env,
    run_env: { HOST: '0.0.0.0', NITRO_HOST: '0.0.0.0' },
  };
}

function reactRouter(pkg: NodePackage): FrameworkResult {
  const spa = setting(pkg, 'react-router.config', /\bssr\s*:\s*false\b/);
  const shared = { framework: 'react-router', build: 'react-router build' };
  if (spa) {
    const evidence = [seen(pkg, spa, 'there is no server: a static single-page app')];
    return { ...shared, kind: 'static', output: 'build/client', spa_fallback: 'index.html', evidence };
  }
  if (!pkg.dependencies.has('@react-router/serve') && !pkg.scripts.has('start')) {
    return {
      stuck:
        'This React Router app renders on a server, but has no start script and not the package @react-router/serve.',
      next_step: 'Add @react-router/serve, a "start" script, or `ssr: false` in react-router.config.',
    };
  }
  return {
    ...shared,
    kind: 'dynamic',
    start: 'exec react-router-serve ./build/server/index.js',
    run_env: { HOST: '0.0.0.0' },
  };
}

function remix(pkg: NodePackage): FrameworkResult {
  const vite = pkg.app.first(...extensions('vite.config')) !== null;
  const spa = vite ? setting(pkg, 'vite.config', /\bssr\s*:\s*false\b/) : null;
  const shared = { framework: 'remix', build: vite ? 'remix vite:build' : 'remix build' };
  if (spa) {
    const evidence = [seen(pkg, spa, 'there is no server: a static single-page app')];
    return { ...shared, kind: 'static', output: 'build/client', spa_fallback: 'index.html', evidence };
  }
  const entry = vite ? './build/server/index.js' : './build/index.js';
  return { ...shared, kind: 'dynamic', start: `exec remix-serve ${entry}`, run_env: { HOST: '0.0.0.0' } };
}

function svelteKit(pkg: NodePackage): FrameworkResult {
  const adapter = setting(pkg, 'svelte.config', /['"]@sveltejs\/adapter-(\w+)['"]/);
  const name = adapter?.match[1] ?? (pkg.dependencies.has('@sveltejs/adapter-node') ? 'node' : 'auto');
  const shared = { framework: 'sveltekit', build: 'vite build' };
  if (name === 'static') {
    const fallback =
      setting(pkg, 'svelte.config', /\bfallback\s*:\s*['"]([\w./-]{1,100})['"]/)?.match[1] ?? null;
    const output = folderSetting(pkg, 'svelte.config', 'pages') ?? 'build';
    const evidence = adapter ? [seen(pkg, adapter, 'the build writes a static site')] : [];
    // 404.html is the answer to an unknown path, not a page that could render it.
    const spa_fallback = fallback === '404.html' ? null : fallback;
    return { ...shared, kind: 'static', output, spa_fallback, evidence };
  }
  const server: FrameworkPlan = {
    ...shared,
    kind: 'dynamic',
    start: `exec node ${quote(folderSetting(pkg, 'svelte.config', 'out') ?? 'build')}`,
    run_env: { HOST: '0.0.0.0' },
    evidence: adapter ? [seen(pkg, adapter, 'the build writes a Node server')] : [],
  };
  if (name === 'node') return server;
  if (name !== 'auto') {
    return {
      stuck: `This SvelteKit app is built for another host: @sveltejs/adapter-${name}.`,
      next_step: 'Use @sveltejs/adapter-node (a server) or @sveltejs/adapter-static (files).',
    };
  }
  return {
    ...server,
    // adapter-auto picks by the host's variables; this one means "a plain Node server" to it.
    build_env: { GCP_BUILDPACKS: '1' },
    extra_install: pkg.dependencies.has('@sveltejs/adapter-node')
      ? []
      : ['npm install --no-save --no-audit --no-fund --legacy-peer-deps @sveltejs/adapter-node@5'],
    warnings: [
      'adapter-auto does not say what to build for; a Node server is made. Name @sveltejs/adapter-node to be sure.',
    ],
  };
}

function astro(pkg: NodePackage): FrameworkResult {
  const build_env = { ASTRO_TELEMETRY_DISABLED: '1' };
  const output = folderSetting(pkg, 'astro.config', 'outDir') ?? 'dist';
  const server = setting(pkg, 'astro.config', /\boutput\s*:\s*['"](server|hybrid)['"]/);
  const adapter = setting(
    pkg,
    'astro.config',
    /['"](@astrojs\/(?:node|vercel|netlify|cloudflare|deno)[\w/]*)['"]/,
  );
  const shared = { framework: 'astro', build: 'astro build', build_env };
  if (!server && !adapter) return { ...shared, kind: 'static', output };
  if (!adapter?.match[1]?.startsWith('@astrojs/node')) {
    if (!server) return { ...shared, kind: 'static', output };
    return {
      stuck: `This Astro app renders on a server${adapter ? ` of another host (${adapter.match[1]})` : ', but names no adapter'}.`,
      next_step: "Use `adapter: node({ mode: 'standalone' })` of @astrojs/node, or `output: 'static'`.",
    };
  }
  const middleware = setting(pkg, 'astro.config', /\bmode\s*:\s*['"]middleware['"]/);
  return {
    ...shared,
    kind: 'dynamic',
    start: `exec node ${quote(`./${output}/server/entry.mjs`)}`,
    run_env: { ...build_env, HOST: '0.0.0.0' },
    evidence: [seen(pkg, adapter, 'the build writes a Node server')],
    warnings: middleware
      ? ["The Node adapter is in mode 'middleware', which does not listen by itself; use 'standalone'."]
      : [],
  };
}

function angular(pkg: NodePackage): FrameworkResult {
  const workspace = pkg.app.jsonc('angular.json');
  const projects = tableAt(workspace, 'projects');
  const chosen =
    stringAt(workspace, 'defaultProject') ??
    Object.keys(projects).find((name) => isApplication(projects[name]));
  if (!chosen)
    return {
      stuck: 'angular.json names no application.',
      next_step: 'Add one with `ng generate application`.',
    };
  const target =
    ['architect', 'targets']
      .map((key) => tableAt(projects[chosen], key, 'build'))
      .find((one) => one.builder) ?? {};
  const options = tableAt(target, 'options');
  const folder =
    folderOption(pkg, 'ng build', '--output-path') ??
    cleanPath(
      stringAt(options, 'outputPath') ?? stringAt(options, 'outputPath', 'base') ?? `dist/${chosen}`,
    ) ??
    'dist';
  // Inside it, and '' when the pages are to lie in the folder itself.
  const { browser = 'browser', server = 'server' } = tableAt(options, 'outputPath');
  const modern = /:application$/.test(stringAt(target, 'builder') ?? '');
  const build_env = { NG_CLI_ANALYTICS: 'false' };
  const evidence = [
    pkg.app.evidence('angular.json', `project ${chosen}`, `the build writes ${folder}`, `"${chosen}"`),
  ];
  const shared = { framework: 'angular', build: 'ng build', build_env, evidence };
  if (
    modern &&
    options.ssr !== undefined &&
    options.ssr !== false &&
    stringAt(options, 'outputMode') !== 'static'
  ) {
    return {
      ...shared,
      kind: 'dynamic',
      start: `exec node ${quote(cleanPath(`${folder}/${server}/server.mjs`)!)}`,
      // It answers 400 to host names it does not know; which ones reach it is decided in front of it.
      run_env: { HOST: '0.0.0.0', NG_ALLOWED_HOSTS: '*' },
    };
  }
  return {
    ...shared,
    kind: 'static',
    output: (modern && cleanPath(`${folder}/${browser}`)) || folder,
    spa_fallback: 'index.html',
  };
}

const isApplication = (project: unknown) => isTable(project) && project.projectType !== 'library';

function nest(pkg: NodePackage): FrameworkResult {
  const config: Table | null = pkg.app.jsonc('nest-cli.json');
  const entry = `dist/${stringAt(config, 'entryFile') ?? 'main'}`;
  return { framework: 'nest', kind: 'dynamic', build: 'nest build', start: `exec node ${quote(entry)}` };
}

interface SiteOptions {
  /** Unknown paths are pages that the browser renders. */
  spa?: boolean;
  /** Config file and key that move the output folder. */
  folder?: [config: string, key: string];
  /** Command and its options that move it, which outrank the config file. */
  option?: [command: string, ...names: string[]];
  build_env?: Record<string, string>;
}

/** A site generator of framework-table.json. */
function site(id: keyof typeof table, options: SiteOptions = {}): Rule {
  const { packages, command, output } = table[id];
  return {
    id,
    packages,
    plan: (pkg) => ({
      framework: id,
      kind: 'static',
      build: command,
      output:
        (options.option ? folderOption(pkg, ...options.option) : null) ??
        (options.folder ? folderSetting(pkg, ...options.folder) : null) ??
        output ??
        'dist',
      spa_fallback: options.spa ? 'index.html' : null,
      build_env: options.build_env ?? {},
    }),
  };
}

const RULES: Rule[] = [
  { id: 'next', packages: ['next'], plan: next },
  { id: 'nuxt', packages: table.nuxt.packages, plan: nuxt },
  { id: 'react-router', packages: ['@react-router/dev'], plan: reactRouter },
  { id: 'remix', packages: ['@remix-run/dev'], plan: remix },
  { id: 'sveltekit', packages: ['@sveltejs/kit'], plan: svelteKit },
  { id: 'astro', packages: ['astro'], plan: astro },
  {
    id: 'tanstack-start',
    packages: table['tanstack-start'].packages,
    plan: tanstackStart,
  },
  { id: 'solid-start', packages: ['@solidjs/start'], plan: nitro('solid-start', 'vinxi build') },
  { id: 'analog', packages: table.analog.packages, plan: nitro('analog', 'vite build') },
  { id: 'qwik', packages: ['@builder.io/qwik-city', '@qwik.dev/router'], plan: qwik },
  { id: 'nest', packages: ['@nestjs/core'], plan: nest },
  site('docusaurus', { option: ['docusaurus build', '--out-dir'] }),
  { id: 'vitepress', packages: ['vitepress'], plan: vitepress },
  site('gatsby', { build_env: { GATSBY_TELEMETRY_DISABLED: '1' } }),
  site('eleventy', { folder: ['eleventy.config|.eleventy', 'output'], option: ['eleventy', '--output'] }),
  site('gridsome'),
  site('hexo'),
  site('vuepress'),
  site('observable'),
  site('react-static'),
  site('stencil'),
  site('expo', { spa: true }),
  site('quasar', { spa: true }),
  site('ember', { spa: true }),
  { id: 'angular', packages: ['@angular/core'], plan: angular },
  site('create-react-app', { spa: true, build_env: { CI: 'false' } }),
  site('vue', {
    spa: true,
    folder: ['vue.config', 'outputDir'],
    option: ['vue-cli-service build', '--dest'],
  }),
  { id: 'vite', packages: table.vite.packages, plan: vite },
  site('parcel', { option: ['parcel build', '--dist-dir'] }),
  site('brunch'),
  site('wmr', { spa: true }),
];

export interface FoundFramework {
  rule: string;
  package: string;
  result: Exclude<FrameworkResult, null>;
}

/** The frameworks whose packages are installed, the deciding one first. */
export function frameworksOf(pkg: NodePackage): FoundFramework[] {
  const found: FoundFramework[] = [];
  for (const { id, packages, plan } of RULES) {
    const name = packages.find((one) => pkg.dependencies.has(one));
    if (name === undefined) continue;
    const result = plan(pkg);
    if (result) found.push({ rule: id, package: name, result });
  }
  return found;
}

/** Packages that make an HTTP server, by the name a person would say. */
const SERVERS: [string, string][] = [
  ['express', 'express'],
  ['fastify', 'fastify'],
  ['hono', 'hono'],
  ['elysia', 'elysia'],
  ['koa', 'koa'],
  ['@hapi/hapi', 'hapi'],
  ['@adonisjs/core', 'adonis'],
  ['@feathersjs/feathers', 'feathers'],
  ['polka', 'polka'],
  ['restify', 'restify'],
  ['h3', 'h3'],
  ['@trpc/server', 'trpc'],
  ['@apollo/server', 'apollo'],
  ['socket.io', 'socket.io'],
  ['ws', 'ws'],
];

/** The server library of a package: its npm name and the name a person would say. */
export function serverLibrary(pkg: NodePackage): { package: string; framework: string } | null {
  const found = SERVERS.find(([name]) => pkg.dependencies.has(name));
  return found ? { package: found[0], framework: found[1] } : null;
}
