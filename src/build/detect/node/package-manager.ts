/**
 * Which package manager an app uses, and how to run it with nothing but npm: the others come through `npx`, in the
 * version the app names, so that the lockfile means what it meant to its author.
 */
import type { Evidence } from '../../../domain/plan.ts';
import { stringAt, stringsAt, tableAt } from '../../manifest.ts';
import { quote } from '../../quote.ts';
import { type App, versionFile } from '../app.ts';

export interface PackageManager {
  name: 'npm' | 'pnpm' | 'yarn' | 'berry' | 'bun';
  /** What has to run for the manager itself, then for the packages; at the workspace root. */
  install: string[];
  /** Command line that runs the manager with further arguments. */
  command: string;
  build_env: Record<string, string>;
  evidence: Evidence[];
  warnings: string[];
}

type Family = 'npm' | 'pnpm' | 'yarn' | 'bun';

/** Used when the app names no version. Exact, so that the plan means the same tomorrow. */
const PNPM_BY_LOCKFILE = [
  { lockfile: '5', version: '7.33.7' },
  { lockfile: '6', version: '8.15.9' },
  { lockfile: '9', version: '9.15.9' },
];
const PNPM = '9.15.9';
const PNPM_WITH_SETTINGS_IN_WORKSPACE_FILE = '10.28.0';
/** pnpm notes when and where it installed; the same packages would make another release each time. */
const PNPM_FORGET = 'rm -f node_modules/.modules.yaml node_modules/.pnpm-workspace-state*.json';
const YARN_CLASSIC = '1.22.22';
const YARN_BERRY = '4.12.0';
const BUN = '1.3.5';

const LOCKFILE_OF: [string, Family][] = [
  ['pnpm-lock.yaml', 'pnpm'],
  ['yarn.lock', 'yarn'],
  ['bun.lock', 'bun'],
  ['bun.lockb', 'bun'],
  ['package-lock.json', 'npm'],
  ['npm-shrinkwrap.json', 'npm'],
];

interface Choice {
  family: Family;
  /** From the `packageManager` field. */
  version: string | null;
  lockfile: string | null;
  evidence: Evidence[];
  warnings: string[];
}

/** The manager of the workspace (or lone package) in `top`. */
export function packageManager(top: App): PackageManager {
  const choice = choose(top);
  const rest = { build_env: {}, evidence: choice.evidence, warnings: choice.warnings };
  switch (choice.family) {
    case 'pnpm': {
      const command = `npx --yes pnpm@${choice.version ?? pnpmVersion(top)}`;
      const frozen = choice.lockfile ? '--frozen-lockfile' : '--no-frozen-lockfile';
      return { ...rest, name: 'pnpm', command, install: [`${command} install ${frozen}`, PNPM_FORGET] };
    }
    case 'yarn':
      return yarn(top, choice);
    case 'bun': {
      const tools = `npm install --no-audit --no-fund --no-save --prefix .kiln/runtime bun@${choice.version ?? BUN}`;
      const command = '.kiln/runtime/node_modules/.bin/bun';
      const frozen = choice.lockfile ? ' --frozen-lockfile' : '';
      return { ...rest, name: 'bun', command, install: [tools, `${command} install${frozen}`] };
    }
    case 'npm': {
      if (!choice.lockfile && installsNothing(top))
        return { ...rest, name: 'npm', command: 'npm', install: [], warnings: [] };
      const install = choice.lockfile ? 'npm ci' : 'npm install';
      return { ...rest, name: 'npm', command: 'npm', install: [`${install} --no-audit --no-fund`] };
    }
  }
}

function yarn(top: App, choice: Choice): PackageManager {
  const rest = { evidence: choice.evidence, warnings: choice.warnings };
  const berry = choice.version
    ? !choice.version.startsWith('1.')
    : top.line('yarn.lock', /^__metadata:/) !== null;
  if (!berry) {
    const command = `npx --yes yarn@${choice.version ?? YARN_CLASSIC}`;
    const frozen = choice.lockfile ? ' --frozen-lockfile' : '';
    return {
      ...rest,
      name: 'yarn',
      command,
      build_env: {},
      install: [`${command} install${frozen} --non-interactive`],
    };
  }
  const own = stringAt(top.yaml('.yarnrc.yml'), 'yarnPath');
  const command =
    own && top.exists(own)
      ? `node ${quote(own)}`
      : `npx --yes @yarnpkg/cli-dist@${choice.version ?? YARN_BERRY}`;
  return {
    ...rest,
    name: 'berry',
    command,
    // Plug'n'Play needs yarn's loader in every process; a node_modules folder runs anywhere.
    build_env: { YARN_NODE_LINKER: 'node-modules', YARN_ENABLE_TELEMETRY: '0' },
    install: [`${command} install${choice.lockfile ? ' --immutable' : ''}`],
  };
}

function choose(top: App): Choice {
  const lockfiles = LOCKFILE_OF.filter(([name]) => top.exists(name));
  const named = /^(npm|pnpm|yarn|bun)@(\d+\.\d+\.\d+(?:-[\w.]+)?)/.exec(
    stringAt(top.json('package.json'), 'packageManager') ?? '',
  );
  const family =
    (named?.[1] as Family | undefined) ?? lockfiles[0]?.[1] ?? (writtenForBun(top) ? 'bun' : 'npm');
  const lockfile = lockfiles.find(([, of]) => of === family)?.[0] ?? null;
  const evidence: Evidence[] = [];
  const warnings: string[] = [];
  if (named) {
    const follows = `packages are installed with ${family} ${named[2]}`;
    evidence.push(top.evidence('package.json', `packageManager ${named[0]}`, follows, '"packageManager":'));
  }
  if (lockfile)
    evidence.push(
      top.evidence(lockfile, lockfile, `packages are installed with ${family}, exactly as locked`),
    );
  else warnings.push(`No lockfile of ${family}: each build may install newer packages. Commit one.`);
  const others = lockfiles.map(([name]) => name).filter((name) => name !== lockfile);
  if (others.length > 0) {
    warnings.push(
      `${others.join(' and ')} ${others.length === 1 ? 'is' : 'are'} ignored: ${family} is used. Remove what is stale.`,
    );
  }
  return { family, version: named?.[2] ?? pinOf(top, family), lockfile, evidence, warnings };
}

/** The manager's version where no `packageManager` names it: Volta, asdf, mise, `devEngines`; full versions only. */
function pinOf(top: App, family: Family): string | null {
  const manifest = top.json('package.json');
  const engine = tableAt(manifest, 'devEngines', 'packageManager');
  const found =
    stringAt(manifest, 'volta', family) ??
    (family === 'bun' ? versionFile(top, 'bun', '.bun-version') : null)?.version ??
    top.pinned(family)?.version ??
    (engine.name === family ? stringAt(engine, 'version') : null);
  return found && /^v?\d+\.\d+\.\d+(?:-[\w.]+)?$/.test(found) ? found.replace(/^v/, '') : null;
}

/** No packages, no workspace and no script that an installation would run: npm would have nothing to do. */
function installsNothing(top: App): boolean {
  const manifest = top.json('package.json');
  if (manifest === null) return false;
  const packages = ['dependencies', 'devDependencies', 'optionalDependencies', 'peerDependencies'];
  if (packages.some((field) => Object.keys(tableAt(manifest, field)).length > 0)) return false;
  const scripts = tableAt(manifest, 'scripts');
  const runs = ['preinstall', 'install', 'postinstall', 'prepare', 'preprepare', 'postprepare'];
  return !('workspaces' in manifest) && runs.every((name) => !(name in scripts));
}

/** No lockfile, but bun is what runs it. */
function writtenForBun(top: App): boolean {
  const manifest = top.json('package.json');
  const types = { ...tableAt(manifest, 'devDependencies'), ...tableAt(manifest, 'dependencies') };
  return (
    '@types/bun' in types ||
    'bun-types' in types ||
    /^bun\s/.test(stringAt(manifest, 'scripts', 'start') ?? '')
  );
}

function pnpmVersion(top: App): string {
  const workspace = top.yaml('pnpm-workspace.yaml');
  // Settings moved into this file with pnpm 10; earlier ones insist on `packages` in it.
  if (workspace && (stringsAt(workspace, 'packages').length === 0 || 'onlyBuiltDependencies' in workspace)) {
    return PNPM_WITH_SETTINGS_IN_WORKSPACE_FILE;
  }
  const locked = /^lockfileVersion: *['"]?(\d+)/m.exec(top.read('pnpm-lock.yaml')?.slice(0, 2000) ?? '')?.[1];
  return PNPM_BY_LOCKFILE.find(({ lockfile }) => lockfile === locked)?.version ?? PNPM;
}

/** Does a script's text need the manager itself on the PATH? */
export function callsManager(script: string): boolean {
  return /(^|[\s;&|(])(pnpm|pnpx|yarn|bun|bunx)(\s|$)/.test(script);
}

/** Does package.json refuse to be used by npm (`devEngines`)? */
export function refusesNpm(top: App): boolean {
  const name = stringAt(tableAt(top.json('package.json'), 'devEngines'), 'packageManager', 'name');
  return name !== null && name !== 'npm';
}
