import { constants } from 'node:fs';
import { access, open, readFile, realpath, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { type Answers, openAnswers, type Said } from './answers.ts';
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
const ELF = Buffer.from('7f454c46', 'hex');

type Ask = (file: string, args: readonly string[]) => Promise<Said>;
/** `entries`: of the search path, for what a tool needs besides itself. */
type Probe = (
  path: string,
  ask: Ask,
  entries: readonly string[],
) => Promise<Omit<Toolchain, 'name' | 'path'> | null>;

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

/** For whoever has nowhere to remember answers: asked once per process. */
export const ASKED_ANEW: Answers = openAnswers(null);

const found_by = new WeakMap<Answers, Map<string, Promise<Toolchain[]>>>();

/** The tools that a search path offers, in the order of `PROBES`; each looked for once per process. */
export function findToolchains(path: string, answers = ASKED_ANEW): Promise<Toolchain[]> {
  const known = found_by.get(answers) ?? new Map<string, Promise<Toolchain[]>>();
  found_by.set(answers, known);
  const found = known.get(path) ?? findAll(path, answers);
  known.set(path, found);
  return found;
}

async function findAll(path: string, answers: Answers): Promise<Toolchain[]> {
  const entries = searchEntries(path);
  const ask: Ask = (file, args) => answers.ask({ file, args, search: entries.join(':') });
  const tools = await Promise.all(Object.keys(PROBES).map((name) => findTool(name, ask, entries)));
  return tools.filter((tool) => tool !== null);
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

async function findTool(name: string, ask: Ask, entries: readonly string[]): Promise<Toolchain | null> {
  for (const entry of entries) {
    const candidate = join(entry, name);
    if (!(await isExecutable(candidate))) continue;
    const found = await PROBES[name]!(candidate, ask, entries).catch(() => null);
    if (found !== null && isSafePrefix(found.prefix_dir)) return { name, path: candidate, ...found };
  }
  if (name !== 'node') return null;
  // The Node that runs Kiln: has no npm, but runs an app that needs none.
  const own = await PROBES.node!(process.execPath, ask, entries).catch(() => null);
  return own === null ? null : { name, path: process.execPath, ...own };
}

export async function isExecutable(path: string): Promise<boolean> {
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

async function probeNode(path: string, ask: Ask): ReturnType<Probe> {
  const said = await ask(path, ['-p', "process.execPath+'\\n'+process.versions.node"]);
  const [exec = '', version = ''] = said.lines;
  const real_path = await realpath(exec);
  if (await isSame(path, real_path)) await said.decidedBy([path]);
  const prefix = dirname(dirname(real_path));
  // A full distribution has its npm and headers beside it; anything else is a lone binary.
  const full = await stat(join(prefix, 'lib/node_modules')).catch(() => null);
  return { real_path, prefix_dir: full ? prefix : real_path, version };
}

/** Tools installed by npm: `<prefix>/bin/<tool>` links into `<prefix>/lib/node_modules/<package>`. */
async function probePackage(path: string, ask: Ask): ReturnType<Probe> {
  const real_path = await realpath(path);
  const root = /^(.*)\/lib\/node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(real_path);
  if (root === null) return probeBinary(path, ask);
  const manifest = await readFile(join(root[1]!, 'lib/node_modules', root[2]!, 'package.json'), 'utf8');
  const { version } = JSON.parse(manifest) as { version: string };
  return { real_path, prefix_dir: root[1]!, version };
}

async function probeBinary(path: string, ask: Ask): ReturnType<Probe> {
  const real_path = await realpath(path);
  return { real_path, prefix_dir: real_path, version: await askVersion(path, real_path, ask) };
}

/** Programs that need what lies beside them: `<prefix>/bin/<tool>`, or a folder of the tool's own. */
async function probePrefix(path: string, ask: Ask): ReturnType<Probe> {
  const found = (await probeBinary(path, ask))!;
  if (isSystem(found.real_path)) return found;
  const dir = dirname(found.real_path);
  return { ...found, prefix_dir: dir.endsWith('/bin') ? dirname(dir) : dir };
}

/** Remembered where the program is one that answers for itself: compiled, named like the tool, and no shim. */
async function askVersion(path: string, real_path: string, ask: Ask): Promise<string> {
  const said = await ask(path, ['--version']);
  const name = basename(path);
  const is_itself = basename(real_path).startsWith(name) && !/shim/i.test(path + real_path);
  // `dotnet --version` is that of the newest SDK beside it.
  if (is_itself && name !== 'dotnet' && (await isCompiled(real_path))) await said.decidedBy([path]);
  return /\d+(\.\d+)+/.exec(said.lines[0] ?? '')?.[0] ?? '';
}

/** Answers for the toolchain behind rustup's shims. */
async function probeCargo(path: string, ask: Ask): ReturnType<Probe> {
  const rustc = join(dirname(path), 'rustc');
  const said = await ask(rustc, ['--print', 'sysroot']);
  const prefix_dir = await realpath(said.lines[0] ?? '');
  if (await isSame(rustc, join(prefix_dir, 'bin/rustc'))) await said.decidedBy([rustc]);
  const real_path = join(prefix_dir, 'bin/cargo');
  return { real_path, prefix_dir, version: await askVersion(real_path, real_path, ask) };
}

/** Answers for the interpreter behind shims and virtual environments. */
async function probePython(path: string, ask: Ask): ReturnType<Probe> {
  const script =
    "import os,sys,platform;b=getattr(sys,'_base_executable',sys.executable);print(os.path.realpath(b));print(sys.base_prefix);print(platform.python_version())";
  const said = await ask(path, ['-I', '-c', script]);
  const [real_path = '', prefix_dir = '', version = ''] = said.lines;
  const bin = dirname(path);
  // Where a virtual environment says which Python it is one of.
  const settings = [join(bin, 'pyvenv.cfg'), join(dirname(bin), 'pyvenv.cfg')];
  if (await isSame(path, real_path)) await said.decidedBy([path, ...settings]);
  return { real_path, prefix_dir, version };
}

/** Python programs in an environment of their own (pipx, uv tool). */
async function probeVirtualEnv(path: string, ask: Ask): ReturnType<Probe> {
  const found = (await probeBinary(path, ask))!;
  const prefix = dirname(dirname(found.real_path));
  const own = await stat(join(prefix, 'pyvenv.cfg')).catch(() => null);
  if (own === null && !isSystem(found.real_path)) return null;
  return { ...found, prefix_dir: own ? prefix : found.real_path };
}

async function probeGo(path: string, ask: Ask): ReturnType<Probe> {
  const said = await ask(path, ['env', 'GOROOT', 'GOVERSION']);
  const [root = '', version = ''] = said.lines;
  const prefix_dir = await realpath(root);
  const real_path = join(prefix_dir, 'bin/go');
  if (await isSame(path, real_path)) await said.decidedBy(goFiles(path, prefix_dir, homedir()));
  return { real_path, prefix_dir, version: version.replace(/^go/, '') };
}

/** What `go env` reads, and what its version is in. A newer toolchain that these ask for is not in its own root. */
export function goFiles(go: string, root: string, home: string): string[] {
  return [go, join(root, 'VERSION'), join(root, 'go.env'), join(home, '.config/go/env')];
}

async function probeElixir(path: string, ask: Ask, entries: readonly string[]): ReturnType<Probe> {
  const script = 'IO.puts(:code.lib_dir(:elixir)); IO.puts(System.version())';
  const said = await ask(path, ['-e', script]);
  const [lib = '', version = ''] = said.lines;
  const lib_dir = await realpath(lib);
  const prefix_dir = dirname(dirname(lib_dir));
  const real_path = join(prefix_dir, 'bin/elixir');
  // It runs on the first Erlang there is, and not at all without one.
  const others = [join(lib_dir, 'ebin/elixir.app'), ...entries.map((entry) => join(entry, 'erl'))];
  if (await isSame(path, real_path)) await said.decidedBy([path, ...others]);
  return { real_path, prefix_dir, version };
}

async function probeErlang(path: string, ask: Ask): ReturnType<Probe> {
  const script = 'io:format("~s~n~s~n",[code:root_dir(),erlang:system_info(otp_release)]),halt().';
  const said = await ask(path, ['-noshell', '-eval', script]);
  const [root = '', version = ''] = said.lines;
  const prefix_dir = await realpath(root);
  const real_path = join(prefix_dir, 'bin/erl');
  if (await isSame(path, real_path))
    await said.decidedBy([path, join(prefix_dir, 'releases/start_erl.data')]);
  return { real_path, prefix_dir, version };
}

/**
 * Whether a program is what it says that it is: the same file behind all links. One that names another is a shim, and
 * what decides its answer is its version manager's own business: it is asked every time.
 */
export async function isSame(path: string, other: string): Promise<boolean> {
  const [one, two] = await Promise.all([path, other].map((file) => realpath(file).catch(() => null)));
  return one !== null && one === two;
}

/** A script may run anything. */
async function isCompiled(path: string): Promise<boolean> {
  const file = await open(path);
  try {
    const { buffer } = await file.read(Buffer.alloc(ELF.length), 0, ELF.length, 0);
    return buffer.equals(ELF);
  } finally {
    await file.close();
  }
}
