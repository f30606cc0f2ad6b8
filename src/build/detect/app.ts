/**
 * One app inside a source, as the detectors see it: the files below its folder, parsed manifests, line numbers,
 * and bounded searches. Manifests that cannot be parsed are remembered, so that the plan can name them.
 */
import type { Evidence, Toolchain } from '../../domain/plan.ts';
import { cleanPath, joinPath, type SourceEntry, type SourceFiles } from '../files.ts';
import {
  type Parsed,
  parseJson,
  parseJsonc,
  parseTomlTable,
  parseYaml,
  stringAt,
  stringsAt,
  type Table,
  tableAt,
} from '../manifest.ts';

/** Folders that hold other people's code, build output or tests: no entrypoint is ever looked for there. */
const SKIPPED_FOLDERS = new Set(
  `node_modules bower_components vendor dist build out target coverage _build deps venv env site-packages __pycache__
   test tests spec e2e cypress migrations fixtures examples docs`.split(/\s+/),
);
const MAX_FOUND = 200;
const MAX_FOLDERS = 400;
/** What is read of a code file when something is looked for in it. */
const CODE_BYTES = 64 * 1024;

export interface ManifestProblem {
  file: string;
  line: number | null;
  problem: string;
}

export interface App {
  /** Folder of the app inside the source. */
  readonly root: string;
  readonly files: SourceFiles;
  /** File to start from, when a setting names one. */
  readonly entrypoint: string | null;
  readonly problems: ManifestProblem[];
  /** Paths below are relative to the app. */
  list(dir?: string): SourceEntry[];
  exists(path: string): boolean;
  /** The first of these files that is there. */
  first(...paths: string[]): string | null;
  read(path: string): string | null;
  json(path: string): Table | null;
  jsonc(path: string): Table | null;
  toml(path: string): Table | null;
  yaml(path: string): Table | null;
  /** Number of the first line of a file that holds the text or matches; null when none does. */
  line(path: string, what: string | RegExp): number | null;
  /** Evidence about one of the app's files, with the line of `what` when it is found. */
  evidence(path: string, found: string, follows: string, what?: string | RegExp): Evidence;
  /** Files of these extensions ('py'), nearest the root first, without tests and dependencies. */
  code(extensions: string[], max_depth?: number): string[];
  /** The first code file with a line that matches, and whose match is accepted. */
  search(
    paths: string[],
    what: RegExp,
    accepts?: (match: RegExpExecArray) => boolean,
  ): { file: string; line: number; match: RegExpExecArray } | null;
  /** The version of a tool that .tool-versions (asdf) or mise.toml pin. */
  pinned(tool: string): Toolchain | null;
}

/** The app in folder `root` of the source. */
export function openApp(files: SourceFiles, root: string, entrypoint: string | null = null): App {
  const problems: ManifestProblem[] = [];
  const parsed = new Map<string, Table | null>();
  const at = (path: string) => joinPath(root, path) ?? '\0';
  const read = (path: string) => files.read(at(path));

  const manifest = (path: string, parse: (text: string) => Parsed): Table | null => {
    const known = parsed.get(path);
    if (known !== undefined) return known;
    const text = read(path);
    const result = text === null ? null : parse(text);
    if (result && !result.ok) problems.push({ file: at(path), line: result.line, problem: result.problem });
    const value = result?.ok ? result.value : null;
    parsed.set(path, value);
    return value;
  };

  const app: App = {
    root,
    files,
    entrypoint,
    problems,
    list: (dir = '.') => files.list(at(dir)),
    exists: (path) => files.exists(at(path)),
    first: (...paths) => paths.find((path) => app.exists(path)) ?? null,
    read,
    json: (path) => manifest(path, parseJson),
    jsonc: (path) => manifest(path, parseJsonc),
    toml: (path) => manifest(path, parseTomlTable),
    yaml: (path) => manifest(path, parseYaml),
    line: (path, what) => lineOf(read(path), what)?.line ?? null,
    evidence: (path, found, follows, what) => ({
      file: at(path),
      line: what === undefined ? null : app.line(path, what),
      found,
      follows,
    }),
    code: (extensions, max_depth = 4) => codeFiles(app, extensions, max_depth),
    search: (paths, what, accepts) => {
      for (const file of paths) {
        const hit = lineOf(files.read(at(file), CODE_BYTES), what, accepts);
        if (hit?.match) return { file, line: hit.line, match: hit.match };
      }
      return null;
    },
    pinned: (tool) => pinnedVersion(app, tool),
  };
  return app;
}

function lineOf(
  text: string | null,
  what: string | RegExp,
  accepts: (match: RegExpExecArray) => boolean = () => true,
): { line: number; match: RegExpExecArray | null } | null {
  if (text === null) return null;
  // Also as Windows writes it: a pattern that ends with $ must not meet the \r.
  const lines = text.split(/\r?\n/);
  for (let at = 0; at < lines.length; at++) {
    // A longer line is generated code, and would let a pattern run for long.
    const line = lines[at]!.slice(0, 1000);
    if (typeof what === 'string') {
      if (line.includes(what)) return { line: at + 1, match: null };
      continue;
    }
    const match = what.exec(line);
    if (match !== null && accepts(match)) return { line: at + 1, match };
  }
  return null;
}

function codeFiles(app: App, extensions: string[], max_depth: number): string[] {
  const found: string[] = [];
  let level = ['.'];
  let folders = 0;
  for (let depth = 0; depth <= max_depth && level.length > 0; depth++) {
    const next: string[] = [];
    for (const dir of level) {
      if (++folders > MAX_FOLDERS || found.length >= MAX_FOUND) return found;
      for (const { name, type } of app.list(dir)) {
        const path = cleanPath(`${dir}/${name}`);
        if (path === null) continue;
        if (type === 'dir' && !name.startsWith('.') && !SKIPPED_FOLDERS.has(name)) next.push(path);
        else if (type === 'file' && extensions.includes(name.slice(name.lastIndexOf('.') + 1)))
          found.push(path);
      }
    }
    level = next;
  }
  return found.slice(0, MAX_FOUND);
}

/** The app's folder and those above it, up to the source's root: version managers look there too. */
function withParents(app: App): App[] {
  const apps = [app];
  for (let dir = app.root; dir !== '.'; ) {
    dir = dir.includes('/') ? dir.slice(0, dir.lastIndexOf('/')) : '.';
    apps.push(openApp(app.files, dir));
  }
  return apps;
}

/** A file of a folder above is named as seen from the source's root. */
const sourceName = (app: App, at: App, file: string): string =>
  at === app ? file : (joinPath(at.root, file) ?? file);

function pinnedVersion(app: App, tool: string): Toolchain | null {
  const names = tool === 'node' ? ['nodejs', 'node'] : tool === 'go' ? ['golang', 'go'] : [tool];
  for (const at of withParents(app)) {
    for (const line of at.read('.tool-versions')?.slice(0, 10_000).split('\n') ?? []) {
      const [name, version] = line.trim().split(/\s+/);
      if (name && version && names.includes(name))
        return { name: tool, version, source: sourceName(app, at, '.tool-versions') };
    }
    for (const file of ['mise.toml', '.mise.toml', '.config/mise.toml']) {
      const tools = at.exists(file) ? tableAt(at.toml(file), 'tools') : {};
      for (const name of names) {
        // Of several versions the first is the one that runs.
        const version =
          stringAt(tools, name) ?? stringAt(tools, name, 'version') ?? stringsAt(tools, name)[0] ?? null;
        if (version) return { name: tool, version, source: sourceName(app, at, file) };
      }
    }
  }
  return null;
}

/** What a one-line version file such as .nvmrc says, comments left out; null when it is missing or empty. */
export function versionFile(app: App, tool: string, ...files: string[]): Toolchain | null {
  for (const at of withParents(app)) {
    for (const file of files) {
      const version = /^\s*([^\s#][^#\n]*)/m.exec(at.read(file)?.slice(0, 200) ?? '')?.[1]?.trim();
      if (version) return { name: tool, version, source: sourceName(app, at, file) };
    }
  }
  return null;
}
