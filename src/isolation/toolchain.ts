import { execFile } from 'node:child_process';
import { constants } from 'node:fs';
import { access, readFile, realpath, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { isInside } from './scratch.ts';

/** A language tool of the host that machines may use, read-only. */
export interface Toolchain {
  name: string;
  /** Where PATH finds it. */
  path: string;
  /** The program itself, behind links and version-manager shims. */
  real_path: string;
  /** The folder (or single file) a machine must see for the tool to work. */
  prefix_dir: string;
  version: string;
}

const SYSTEM_DIRS = ['/usr', '/bin', '/sbin', '/lib', '/lib64'];
const SYSTEM_PATH = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'];
/** Folders of PATH that belong to the package Kiln was started through, not to the host. */
const PACKAGE_BIN = /(node_modules\/\.bin|node-gyp-bin)\/?$/;
const PROBE_TIMEOUT_MS = 10_000;

type Probe = (path: string, search: string) => Promise<Omit<Toolchain, 'name' | 'path'> | null>;

const PROBES: Record<string, Probe> = {
  node: probeNode,
  npm: probePackage,
  pnpm: probePackage,
  yarn: probePackage,
  bun: probeBinary,
  deno: probeBinary,
  python3: probePython,
  uv: probeBinary,
  poetry: probeVirtualEnv,
  go: probeGo,
  elixir: probeElixir,
  erl: probeErlang,
  ruby: probePrefix,
  php: probePrefix,
  java: probePrefix,
  cargo: probeCargo,
  dotnet: probePrefix,
};

/** What `findToolchains` looks for. */
export const TOOL_NAMES: readonly string[] = Object.keys(PROBES);

const cache = new Map<string, Promise<Toolchain[]>>();

/** The tools that a search path offers, in the order of `PROBES`; each found once, then remembered. */
export function findToolchains(path: string): Promise<Toolchain[]> {
  const known = cache.get(path);
  if (known !== undefined) return known;
  const found = Promise.all(Object.keys(PROBES).map((name) => findTool(name, path))).then((tools) =>
    tools.filter((tool) => tool !== null),
  );
  cache.set(path, found);
  return found;
}

/** The entries of a search path without those of `npm run`. */
export function searchEntries(path: string): string[] {
  return [...new Set(path.split(':').filter((entry) => entry.startsWith('/') && !PACKAGE_BIN.test(entry)))];
}

/**
 * The search path inside a machine: the host's order, each entry replaced by where its tools really are (a shim
 * needs its version manager, which a machine does not have), then the system folders.
 */
export function machinePath(tools: readonly Toolchain[], host_path: string): string {
  const entries = searchEntries(host_path);
  const dirs = entries.flatMap((entry) => [
    ...tools.filter((tool) => dirname(tool.path) === entry).map(programDir),
    ...(isSystem(entry) ? [entry] : []),
  ]);
  return [...new Set([...dirs, ...tools.map(programDir), ...SYSTEM_PATH])].join(':');
}

/** The folder that offers a tool inside a machine: its place in PATH if that is visible there. */
function programDir(tool: Toolchain): string {
  const visible = isSystem(tool.path) || isInside(tool.prefix_dir, tool.path);
  return dirname(visible ? tool.path : tool.real_path);
}

export function isSystem(path: string): boolean {
  return SYSTEM_DIRS.some((dir) => isInside(dir, path));
}

async function findTool(name: string, path: string): Promise<Toolchain | null> {
  const entries = searchEntries(path);
  const search = entries.join(':');
  for (const entry of entries) {
    const candidate = join(entry, name);
    if (!(await isExecutable(candidate))) continue;
    const found = await PROBES[name]!(candidate, search).catch(() => null);
    if (found !== null && isSafePrefix(found.prefix_dir)) return { name, path: candidate, ...found };
  }
  if (name !== 'node') return null;
  // The Node that runs Kiln: has no npm, but runs an app that needs none.
  const own = await PROBES.node!(process.execPath, search).catch(() => null);
  return own === null ? null : { name, path: process.execPath, ...own };
}

async function isExecutable(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return (await stat(path)).isFile();
  } catch {
    return false;
  }
}

/** A whole home folder, or ~/.local with its keys, is never shown to a machine for the sake of a tool in it. */
function isSafePrefix(prefix: string): boolean {
  return prefix !== '/' && !isInside(prefix, homedir()) && prefix !== join(homedir(), '.local');
}

/** Runs a tool with nothing but a search path and HOME (shims look there for their versions). */
function ask(file: string, args: string[], search: string): Promise<string[]> {
  return new Promise((resolve, reject) => {
    const env = { PATH: search, HOME: homedir(), LC_ALL: 'C.UTF-8' };
    execFile(file, args, { env, timeout: PROBE_TIMEOUT_MS, cwd: '/' }, (error, stdout) =>
      error === null ? resolve(stdout.trim().split('\n')) : reject(error),
    );
  });
}

async function probeNode(path: string, search: string): ReturnType<Probe> {
  const [exec = '', version = ''] = await ask(
    path,
    ['-p', "process.execPath+'\\n'+process.versions.node"],
    search,
  );
  const real_path = await realpath(exec);
  const prefix = dirname(dirname(real_path));
  // A full distribution has its npm and headers beside it; anything else is a lone binary.
  const full = await stat(join(prefix, 'lib/node_modules')).catch(() => null);
  return { real_path, prefix_dir: full ? prefix : real_path, version };
}

/** Tools installed by npm: `<prefix>/bin/<tool>` links into `<prefix>/lib/node_modules/<package>`. */
async function probePackage(path: string): ReturnType<Probe> {
  const real_path = await realpath(path);
  const root = /^(.*)\/lib\/node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(real_path);
  if (root === null) return probeBinary(path, '');
  const manifest = await readFile(join(root[1]!, 'lib/node_modules', root[2]!, 'package.json'), 'utf8');
  const { version } = JSON.parse(manifest) as { version: string };
  return { real_path, prefix_dir: root[1]!, version };
}

async function probeBinary(path: string, search: string): ReturnType<Probe> {
  const real_path = await realpath(path);
  const [line = ''] = await ask(path, ['--version'], search);
  return { real_path, prefix_dir: real_path, version: /\d+(\.\d+)+/.exec(line)?.[0] ?? '' };
}

/** Programs that need what lies beside them: `<prefix>/bin/<tool>`, or a folder of the tool's own. */
async function probePrefix(path: string, search: string): ReturnType<Probe> {
  const found = (await probeBinary(path, search))!;
  if (isSystem(found.real_path)) return found;
  const dir = dirname(found.real_path);
  return { ...found, prefix_dir: dir.endsWith('/bin') ? dirname(dir) : dir };
}

/** Answers for the toolchain behind rustup's shims. */
async function probeCargo(path: string, search: string): ReturnType<Probe> {
  const [root = ''] = await ask(join(dirname(path), 'rustc'), ['--print', 'sysroot'], search);
  const prefix_dir = await realpath(root);
  const real_path = join(prefix_dir, 'bin/cargo');
  const [line = ''] = await ask(real_path, ['--version'], search);
  return { real_path, prefix_dir, version: /\d+(\.\d+)+/.exec(line)?.[0] ?? '' };
}

/** Answers for the interpreter behind shims and virtual environments. */
async function probePython(path: string, search: string): ReturnType<Probe> {
  const script =
    "import os,sys,platform;b=getattr(sys,'_base_executable',sys.executable);print(os.path.realpath(b));print(sys.base_prefix);print(platform.python_version())";
  const [real_path = '', prefix_dir = '', version = ''] = await ask(path, ['-I', '-c', script], search);
  return { real_path, prefix_dir, version };
}

/** Python programs in an environment of their own (pipx, uv tool). */
async function probeVirtualEnv(path: string, search: string): ReturnType<Probe> {
  const found = (await probeBinary(path, search))!;
  const prefix = dirname(dirname(found.real_path));
  const own = await stat(join(prefix, 'pyvenv.cfg')).catch(() => null);
  if (own === null && !isSystem(found.real_path)) return null;
  return { ...found, prefix_dir: own ? prefix : found.real_path };
}

async function probeGo(path: string, search: string): ReturnType<Probe> {
  const [root = '', version = ''] = await ask(path, ['env', 'GOROOT', 'GOVERSION'], search);
  const prefix_dir = await realpath(root);
  return { real_path: join(prefix_dir, 'bin/go'), prefix_dir, version: version.replace(/^go/, '') };
}

async function probeElixir(path: string, search: string): ReturnType<Probe> {
  const script = 'IO.puts(:code.lib_dir(:elixir)); IO.puts(System.version())';
  const [lib = '', version = ''] = await ask(path, ['-e', script], search);
  const prefix_dir = dirname(dirname(await realpath(lib)));
  return { real_path: join(prefix_dir, 'bin/elixir'), prefix_dir, version };
}

async function probeErlang(path: string, search: string): ReturnType<Probe> {
  const script = 'io:format("~s~n~s~n",[code:root_dir(),erlang:system_info(otp_release)]),halt().';
  const [root = '', version = ''] = await ask(path, ['-noshell', '-eval', script], search);
  const prefix_dir = await realpath(root);
  return { real_path: join(prefix_dir, 'bin/erl'), prefix_dir, version };
}
