/**
 * From a source to a plan: what to install, build, start and pack, and why. A pure function of the files and the
 * settings; it runs nothing. Explicit commands outrank a Dockerfile, that outranks what the detectors find, and
 * files are served as they are only when nothing says that they are source.
 */
import type { BuildMode, Plan, PlanOverrides } from '../domain/plan.ts';
import type { App } from './detect/app.ts';
import { type Detection, detection as emptyDetection } from './detect/detector.ts';
import { hostRuleNotes } from './detect/host-rules.ts';
import { DETECTORS, type Detected } from './detect/index.ts';
import { portOfCommand } from './detect/port.ts';
import { hasPage, packFolder, pagesNear, sourceIn } from './detect/static.ts';
import { type DockerfileFacts, readDockerfile, withAppBeside } from './dockerfile.ts';
import { cleanPath, joinPath, type SourceFiles } from './files.ts';
import { leftOutNotes } from './left-out-notes.ts';
import { lookForApp } from './look.ts';
import { sourcesOf } from './plan-sources.ts';
import { readSettings, type SettingSources, type Settings } from './settings.ts';

export interface Refusal {
  code: 'NO_PLAN' | 'BUILDKIT_MISSING' | 'INVALID_CONFIG';
  /** What is missing or wrong, one sentence or two. */
  message: string;
  next_step: string;
  /** Files that would have decided. */
  looked_for: string[];
  /** What is at the top of the source instead. */
  found: string[];
}

export type PlanResult = { ok: true; plan: Plan } | { ok: false; refusal: Refusal };

const DEFAULT_STARTUP_MS = 60_000;
const MAX_FOUND_NAMES = 30;
const HOW_TO_SAY =
  'Add a manifest of your language or an index.html, or give run_command for a server, or build_command and output_path for a site.';

/** What deciding works with. */
interface Case {
  files: SourceFiles;
  app: App;
  settings: Settings;
  sources: SettingSources;
  startup_ms: number;
  warnings: string[];
  detected: Detected;
  dockerfile: DockerfileFacts | null;
}

/**
 * The plan for a source, or why there is none. `env` is the deployment's build environment (only its `KILN_*`
 * variables are read). Never throws on any source.
 */
export function makePlan(
  files: SourceFiles,
  o: {
    overrides: PlanOverrides;
    env?: Record<string, string>;
    /** How long a first answer may take where neither the source nor its framework says. Default 60 s. */
    startup_timeout_ms?: number;
  },
): PlanResult {
  const read = readSettings(files, o.overrides, o.env ?? {});
  if (!read.ok) return refuse(files, 'INVALID_CONFIG', read.message, read.next_step);
  const { settings, sources } = read;
  const wrong = contradiction(files, settings);
  if (wrong) return refuse(files, 'INVALID_CONFIG', wrong.message, wrong.next_step);

  const { app, detected } = lookForApp(files, settings);
  const commands = settings.run_command ?? settings.build_command;
  // With commands the Dockerfile only loses, wherever it is; else output_path may name the folder of one.
  const dockerfile =
    readDockerfile(app, settings.output_path ?? '.', settings) ??
    (commands ? readDockerfile(app, '.', settings) : null);
  const startup_ms = o.startup_timeout_ms ?? DEFAULT_STARTUP_MS;
  if (settings.dockerfile && !dockerfile)
    return refuse(
      files,
      'INVALID_CONFIG',
      `dockerfile is ${settings.dockerfile}, but ${settings.output_path ?? 'the source'} has no such file.`,
      'Name a file of the build context, which is output_path or else the whole source.',
    );
  const of: Case = {
    files,
    app,
    settings,
    sources,
    startup_ms,
    warnings: read.warnings,
    detected,
    dockerfile,
  };
  if (commands) return explicit(of);
  if (dockerfile && settings.kind !== 'static') return fromDockerfile(of, dockerfile);
  return automatic(of);
}

function contradiction(
  files: SourceFiles,
  settings: Settings,
): { message: string; next_step: string } | null {
  const { root = '.', kind, run_command, entrypoint } = settings;
  if (root !== '.' && files.list(root).length === 0) {
    return {
      message: `root is ${root}, but the source has no such folder, or nothing is in it.`,
      next_step: 'Name a folder of the source.',
    };
  }
  if (entrypoint !== undefined && !run_command && !isThere(files, root, entrypoint)) {
    return {
      message: `entrypoint is ${entrypoint}, but the source has no such file${root === '.' ? '' : ` in ${root}`}.`,
      next_step: 'Name a file of the source; what the build writes is started with run_command.',
    };
  }
  if (kind === 'static' && run_command) {
    return {
      message: 'kind is static, but a run_command is given.',
      next_step: 'A site has no run_command: leave out one of the two.',
    };
  }
  return null;
}

/** In the app's folder or, when that is to be found, one folder down. Rust's may be the bare name of a binary. */
function isThere(files: SourceFiles, root: string, entrypoint: string): boolean {
  const folders = ['.', ...files.list(root).flatMap(({ name, type }) => (type === 'dir' ? name : []))];
  return folders.some((folder) => {
    const dir = joinPath(root, folder) ?? root;
    return (
      files.exists(joinPath(dir, entrypoint) ?? '\0') ||
      (/^[\w-]+$/.test(entrypoint) && files.exists(joinPath(dir, 'Cargo.toml') ?? '\0'))
    );
  });
}

/** Commands were given: those run; the detector still knows how to install and what the framework needs. */
function explicit(of: Case): PlanResult {
  const { settings, detected, app } = of;
  const given = [settings.build_command && 'build_command', settings.run_command && 'run_command']
    .filter(Boolean)
    .join(' and ');
  const reason = `${given} ${given.includes(' and ') ? 'are' : 'is'} given, which outranks everything found in the source.`;
  const base = detected.detection ?? emptyDetection({ ecosystem: '', kind: 'static' });
  const dynamic =
    settings.run_command !== undefined ||
    settings.kind === 'dynamic' ||
    (base.kind === 'dynamic' && settings.kind !== 'static' && !settings.output_path);
  if (dynamic && !settings.run_command && !base.start) {
    return refuse(
      of.files,
      'NO_PLAN',
      'kind is dynamic, but nothing says how the server starts.',
      'Give run_command.',
    );
  }
  const output = dynamic ? null : (settings.output_path ?? base.output);
  if (!dynamic && output === null) {
    const source = sourceIn(app);
    if (source) {
      const message = `build_command is given and ${source} is there, but not which folder the build writes; the source itself is never served.`;
      return refuse(
        of.files,
        'NO_PLAN',
        message,
        'Give output_path (such as dist), or run_command if it is a server.',
      );
    }
  }
  const found = {
    ...base,
    kind: dynamic ? ('dynamic' as const) : ('static' as const),
    output: output ?? '.',
  };
  return complete(of, 'explicit', reason, found);
}

function fromDockerfile(of: Case, written: DockerfileFacts): PlanResult {
  const { detected, settings } = of;
  const facts = withAppBeside(written, settings.output_path ? null : detected.detection);
  const rule = detected.detection?.ecosystem;
  const lost = rule ? [{ rule, lost_because: 'A Dockerfile outranks detection.' }] : [];
  const found = emptyDetection({
    ecosystem: 'dockerfile',
    kind: 'dynamic',
    port: facts.port,
    health_check_path: facts.health_check_path,
    startup_timeout_ms: facts.startup_timeout_ms,
    evidence: facts.evidence,
    warnings: facts.warnings,
    would_change: [
      `build_command or run_command builds without the Dockerfile${rule ? ` (as ${rule})` : ''}; so does removing it.`,
    ],
  });
  const dir = settings.output_path ?? settings.root ?? '.';
  const file = settings.dockerfile ?? 'Dockerfile';
  const reason = `A ${file} is in ${dir === '.' ? 'the source root' : dir}.`;
  const result = complete(
    { ...of, detected: { ...detected, also_matched: [...lost, ...detected.also_matched] } },
    'dockerfile',
    reason,
    found,
  );
  if (result.ok && (settings.dockerfile || settings.target))
    result.plan.dockerfile = { file, target: settings.target ?? null };
  return result;
}

function automatic(of: Case): PlanResult {
  const { app, settings, detected } = of;
  const found = detected.detection;
  const site = packed(of);
  if (site && (!found || found.ecosystem === 'static' || found.output !== settings.output_path)) {
    if (settings.kind !== 'dynamic') return complete(of, 'static', site.reason, site.detection);
  }
  if (!found) return refuseUnknown(of);
  if (settings.kind === 'static' && found.kind === 'dynamic') {
    if (settings.output_path && found.build.length > 0) {
      return complete(
        of,
        'auto',
        `The source is a ${named(found)} app; kind and output_path make it a site.`,
        { ...found, kind: 'static', start: null },
      );
    }
    const message = `kind is static, but this is a ${named(found)} server; its source is never served as files.`;
    return refuse(
      of.files,
      'NO_PLAN',
      message,
      'Give build_command and output_path for the folder to serve, or leave kind out.',
    );
  }
  if (settings.kind === 'dynamic' && found.kind === 'static') {
    const message = `kind is dynamic, but this is a ${named(found)} site without a server.`;
    return refuse(of.files, 'NO_PLAN', message, 'Give run_command, or leave kind out.');
  }
  if (found.ecosystem === 'static')
    return complete(of, 'static', 'Only static files, and no server entrypoint.', found);
  const where = app.root === '.' && found.root !== null && found.root !== '.' ? ` in ${found.root}` : '';
  return complete(of, 'auto', `The source is a ${named(found)} app${where}.`, found);
}

/** A folder that was asked for and is a site already: served as it is. */
function packed({ app, settings }: Case): { detection: Detection; reason: string } | null {
  const page = settings.entrypoint && /\.html?$/i.test(settings.entrypoint) ? settings.entrypoint : null;
  const folder =
    settings.output_path ??
    (page
      ? page.slice(0, Math.max(0, page.lastIndexOf('/'))) || '.'
      : settings.kind === 'static'
        ? '.'
        : null);
  if (folder === null || !hasPage(app, folder)) return null;
  // The root with a manifest in it is source, whoever asks; a folder inside is what was meant.
  if (folder === '.' && sourceIn(app)) return null;
  const evidence = [
    app.evidence(
      folder === '.' ? 'index.html' : folder,
      'a folder with pages',
      `the folder ${folder} is served`,
    ),
  ];
  const reason = `${settings.output_path ? 'output_path' : page ? 'entrypoint' : 'kind'} names files that are a site as they are.`;
  return { detection: packFolder(app, folder, evidence, false), reason };
}

const named = ({ framework, ecosystem }: Detection): string =>
  framework && framework !== ecosystem ? `${ecosystem} (${framework})` : ecosystem;

/** The plan of a case whose mode is decided: settings put over what was found, and everything written down. */
function complete(of: Case, mode: BuildMode, mode_reason: string, found: Detection): PlanResult {
  const { app, settings, detected } = of;
  const root = found.root ?? app.root;
  const dynamic = found.kind === 'dynamic';
  const inRoot = (path: string) =>
    root !== '.' && `${path}/`.startsWith(`${root}/`) ? path : (joinPath(root, path) ?? root);
  const ours = (command: string) => (found.setup ? `${found.setup}; ${command}` : command);
  const output_path =
    settings.output_path !== undefined
      ? inRoot(settings.output_path)
      : dynamic
        ? '.'
        : inRoot(found.output ?? '.');
  const spa_fallback = dynamic
    ? null
    : settings.spa === undefined
      ? found.spa_fallback
      : settings.spa
        ? (found.spa_fallback ?? 'index.html')
        : null;
  const plan: Plan = {
    mode,
    mode_reason,
    ecosystem: found.ecosystem || null,
    framework: found.framework,
    kind: found.kind,
    root,
    install: settings.install_command ? [ours(settings.install_command)] : found.install,
    build: settings.build_command ? [ours(settings.build_command)] : found.build,
    start: dynamic ? (settings.run_command ? ours(settings.run_command) : found.start) : null,
    port: dynamic ? (settings.port ?? portOf(app, settings, found)) : null,
    output_path,
    spa_fallback,
    build_env: found.build_env,
    run_env: dynamic ? found.run_env : {},
    health_check_path:
      settings.health_check_path ?? (settings.run_command ? null : found.health_check_path) ?? '/',
    startup_timeout_ms: settings.startup_timeout_ms ?? Math.max(found.startup_timeout_ms ?? 0, of.startup_ms),
    toolchains: found.toolchains,
    evidence: found.evidence,
    also_matched: [...detected.also_matched, ...losers(of, mode)],
    sources: {},
    would_change: [...(mode === 'explicit' ? [withoutCommands(of)] : []), ...found.would_change],
    warnings: [...of.warnings, ...found.warnings, ...problemNotes(of), ...outputNotes(of, found)],
  };
  plan.warnings.push(...leftOutNotes(plan, found.setup, of.files));
  plan.sources = sourcesOf(of.sources, plan);
  return { ok: true, plan };
}

const portOf = (app: App, { run_command }: Settings, { port }: Detection): number | null =>
  run_command === undefined ? port : portOfCommand(app, run_command, port);

/** What leaving the commands out would do. */
function withoutCommands({ settings, detected, dockerfile }: Case): string {
  const given = [settings.build_command && 'build_command', settings.run_command && 'run_command'].filter(
    Boolean,
  );
  const found = detected.detection;
  const then = dockerfile
    ? 'the Dockerfile decides'
    : found
      ? `it is built as ${named(found)}, a ${found.kind === 'static' ? 'static site' : 'server'}`
      : 'nothing says how to build it';
  return `Without ${given.join(' and ')}, ${then}.`;
}

/** Rules that would have decided if a stronger one had not. */
function losers({ dockerfile, detected, settings }: Case, mode: BuildMode): Plan['also_matched'] {
  const lost: Plan['also_matched'] = [];
  if (mode === 'explicit' && dockerfile)
    lost.push({ rule: 'dockerfile', lost_because: 'build_command and run_command outrank a Dockerfile.' });
  if (mode !== 'dockerfile' && mode !== 'explicit' && dockerfile)
    lost.push({ rule: 'dockerfile', lost_because: `kind is ${settings.kind}.` });
  for (const { rule, stuck } of detected.stuck) lost.push({ rule, lost_because: stuck });
  return lost;
}

function problemNotes({ detected }: Case): string[] {
  return detected.problems.map(
    ({ file, line, problem }) =>
      `${file}${line === null ? '' : `:${line}`} cannot be read and was ignored: ${problem}`,
  );
}

function outputNotes({ app, settings }: Case, found: Detection): string[] {
  if (found.kind === 'static') {
    const output = settings.output_path ?? found.output ?? '.';
    const rules = hostRuleNotes(app, output, settings.spa ?? found.spa_fallback !== null);
    if (output !== '.' || !sourceIn(app)) return rules;
    return [
      `The whole folder is served, ${sourceIn(app)} too. Give output_path for what is public.`,
      ...rules,
    ];
  }
  if (found.kind === 'dynamic' && settings.output_path && settings.output_path !== '.') {
    return [`Only ${settings.output_path} is packed; the server has to find everything it needs in there.`];
  }
  return [];
}

function refuseUnknown(of: Case): PlanResult {
  const { detected, files } = of;
  const problem = detected.problems[0];
  if (problem) {
    const at = `${problem.file}${problem.line === null ? '' : `:${problem.line}`}`;
    return refuse(files, 'NO_PLAN', `${at} cannot be read: ${problem.problem}`, `Correct ${problem.file}.`);
  }
  const stuck = detected.stuck[0];
  if (stuck) return refuse(files, 'NO_PLAN', stuck.stuck, stuck.next_step);
  const { output_path } = of.settings;
  if (output_path && cleanPath(output_path) !== '.')
    return refuse(files, 'NO_PLAN', `Nothing in the source says how to make ${output_path}.`, HOW_TO_SAY);
  const near = pagesNear(of.app);
  const message = 'Nothing in the source says how to build or serve it';
  return near
    ? refuse(files, 'NO_PLAN', `${message}, but ${near.found}.`, near.next_step)
    : refuse(files, 'NO_PLAN', `${message}.`, HOW_TO_SAY);
}

function refuse(files: SourceFiles, code: Refusal['code'], message: string, next_step: string): PlanResult {
  const looked_for =
    code === 'NO_PLAN' ? ['Dockerfile', ...DETECTORS.flatMap(({ looks_for }) => looks_for)] : [];
  const found = files
    .list('.')
    .slice(0, MAX_FOUND_NAMES)
    .map(({ name, type }) => (type === 'dir' ? `${name}/` : name));
  return { ok: false, refusal: { code, message, next_step, looked_for, found } };
}
