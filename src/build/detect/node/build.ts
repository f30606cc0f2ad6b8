/** How a package is built. */
import type { Evidence } from '../../../domain/plan.ts';
import { quote } from '../../quote.ts';
import { openApp } from '../app.ts';
import type { FrameworkPlan } from './framework.ts';
import { binPath, type NodePackage } from './package.ts';
import { callsManager, refusesNpm } from './package-manager.ts';
import type { BuildStep } from './start.ts';
import { localDependencies } from './workspace.ts';

/** Commands that build: workspace packages it depends on first, then its own script or the framework's command. */
export function buildCommands(
  pkg: NodePackage,
  framework: FrameworkPlan | null,
  builds: BuildStep[],
): string[] {
  const commands: string[] = [];
  if (pkg.to_top !== '.') {
    for (const dir of localDependencies(pkg.app.files, pkg.top, pkg.app.root)) {
      const script = openApp(pkg.app.files, dir).json('package.json')?.scripts;
      if (script && typeof script === 'object' && 'build' in script) {
        const inner = dir.slice(pkg.top.root === '.' ? 0 : pkg.top.root.length + 1);
        commands.push(`cd ${quote(`${pkg.to_top}/${inner}`)} && npm run build`);
      }
    }
  }
  const own = pkg.scripts.has('build') ? [runScript(pkg, 'build')] : [];
  const in_start = builds.flatMap((step) =>
    'command' in step
      ? `${binPath(pkg)}; ${step.command}`
      : step.script === 'build'
        ? []
        : runScript(pkg, step.script),
  );
  if (own.length + in_start.length > 0) commands.push(...own, ...in_start);
  else if (framework?.build) commands.push(`${binPath(pkg)}; ${framework.build}`);
  else if (compilesByHand(pkg)) commands.push(`${binPath(pkg)}; tsc`);
  return [...commands, ...(framework?.after_build ?? [])];
}

/** npm runs any manager's scripts, unless a script (or package.json itself) insists on the manager. */
function runScript(pkg: NodePackage, name: string): string {
  const text = pkg.scripts.get(name) ?? '';
  if (pkg.manager.name === 'npm' || !(callsManager(text) || refusesNpm(pkg.top))) return `npm run ${name}`;
  return pkg.manager.name === 'bun'
    ? `${binPath(pkg)}; bun run ${name}`
    : `${pkg.manager.command} run ${name}`;
}

/** The start script runs compiled TypeScript, and nothing says how to compile it. */
function compilesByHand(pkg: NodePackage): boolean {
  const compiled = /\b(?:node)\s+(?:\.\/)?(?:dist|build|out|lib)\b/.test(pkg.scripts.get('start') ?? '');
  return compiled && pkg.dependencies.has('typescript') && pkg.app.exists('tsconfig.json');
}

export function buildEvidence(pkg: NodePackage): Evidence[] {
  const text = pkg.scripts.get('build');
  if (text === undefined) return [];
  return [
    pkg.app.evidence(
      'package.json',
      `script "build": ${text.slice(0, 120)}`,
      'this is the build',
      '"build":',
    ),
  ];
}
