/** Frameworks whose server comes from something added to them: Nitro, or an adapter. */
import { type FrameworkPlan, type FrameworkResult, seen, setting } from './framework.ts';
import type { NodePackage } from './package.ts';

const NITRO: Pick<FrameworkPlan, 'kind' | 'start' | 'run_env'> = {
  kind: 'dynamic',
  start: 'exec node .output/server/index.mjs',
  run_env: { HOST: '0.0.0.0', NITRO_HOST: '0.0.0.0' },
};

/** SolidStart and Analog build a Nitro server. */
export const nitro = (framework: string, build: string) => (): FrameworkResult => ({
  framework,
  build,
  ...NITRO,
});

/** Nitro is a plugin of its own since TanStack Start left Vinxi; without it the build makes a handler, not a server. */
export function tanstackStart(pkg: NodePackage): FrameworkResult {
  const shared = { framework: 'tanstack-start', build: 'vite build' };
  const spa = setting(pkg, 'vite.config', /\bspa\s*:\s*\{(?!\s*enabled\s*:\s*false)/);
  if (spa) {
    const evidence = [seen(pkg, spa, 'pages are made in the browser: a static site')];
    return { ...shared, kind: 'static', output: 'dist/client', spa_fallback: '_shell.html', evidence };
  }
  const has_nitro = ['nitro', 'nitropack', 'vinxi', '@tanstack/nitro-v2-vite-plugin'].some((name) =>
    pkg.dependencies.has(name),
  );
  if (has_nitro || !setting(pkg, 'vite.config', /\btanstackStart\s*\(/)) return { ...shared, ...NITRO };
  return {
    stuck: 'This TanStack Start app has no server to run: the package nitro is not among its dependencies.',
    next_step:
      'Add nitro and `nitro()` (from nitro/vite) to the plugins of vite.config, or a "start" script that runs a server file.',
  };
}

/** Qwik City's server is what `qwik add` wrote into `adapters/`. */
export function qwik(pkg: NodePackage): FrameworkResult {
  const adapters = pkg.app.list('adapters').map(({ name }) => name);
  const shared = { framework: 'qwik', build: 'qwik build' };
  const server = ['express', 'fastify', 'node-server'].find((name) => adapters.includes(name));
  if (server) {
    const start = `exec node server/entry.${server}.js`;
    const evidence = [
      pkg.app.evidence(`adapters/${server}`, `adapter ${server}`, 'the build writes a Node server'),
    ];
    return { ...shared, kind: 'dynamic', start, evidence };
  }
  const generated = ['static', 'ssg'].find((name) => adapters.includes(name));
  if (generated) {
    const evidence = [
      pkg.app.evidence(`adapters/${generated}`, 'adapter static', 'the build writes a static site'),
    ];
    return { ...shared, kind: 'static', output: 'dist', evidence };
  }
  return {
    stuck: `This Qwik app has ${adapters.length > 0 ? `only adapters for other hosts: ${adapters.slice(0, 10).join(', ')}` : 'no adapter, so its build makes no server and no pages'}.`,
    next_step: 'Run `npm run qwik add node-server` (a server) or `npm run qwik add static` (files).',
  };
}
