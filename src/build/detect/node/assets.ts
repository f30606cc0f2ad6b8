/** Browser assets of an app whose server is not Node: package.json beside a Gemfile, composer.json, manage.py, … */
import type { Evidence, Toolchain } from '../../../domain/plan.ts';
import type { App } from '../app.ts';
import { nodePackage, nodeVersion } from './package.ts';

export interface Assets {
  install: string[];
  build: string[];
  build_env: Record<string, string>;
  toolchains: Toolchain[];
  evidence: Evidence[];
}

const NONE: Assets = { install: [], build: [], build_env: {}, toolchains: [], evidence: [] };

/** Commands that build them; empty when package.json has no build script. */
export function browserAssets(app: App): Assets {
  const pkg = app.exists('package.json') ? nodePackage(app) : null;
  if (!pkg?.scripts.has('build')) return NONE;
  return {
    install: pkg.manager.install,
    build: ['npm run build'],
    build_env: pkg.manager.build_env,
    toolchains: [nodeVersion(pkg)],
    evidence: [
      app.evidence('package.json', 'script "build"', 'browser assets are built with it', '"build":'),
    ],
  };
}
