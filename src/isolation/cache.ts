import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { countBytes } from './disk.ts';
import type { CacheFolder } from './driver.ts';
import { removeTree } from './scratch.ts';

/**
 * The package managers' caches of one deployment, kept from build to build:
 *
 *   <dir>/content     what builds see as /cache
 *   <dir>/trash-*     thrown away, perhaps not removed yet
 *   <dir>/cache.json  when it was used last, and how long builds took
 *
 * It belongs to one deployment, so what a build leaves in it can harm nobody else. Only downloads and what is keyed
 * by its inputs is kept; settings, programs and credentials that tools put beside are removed (KEPT), and caches
 * that frameworks keep of their own output (.next/cache, node_modules/.vite) are none of it: they would let an
 * earlier build change the bytes of a later one.
 */
export interface Cache {
  spec: CacheFolder;
  before_bytes: number;
  /** For the build's log, at its start. */
  line: string;
  /**
   * Once no machine uses it any more: evicts down to the limit. `duration_ms` is the time the build's commands
   * took, null when they failed. Never rejects.
   */
  close(duration_ms: number | null): Promise<CacheReport>;
}

export interface CacheReport {
  bytes: number;
  /** How often a build filled it so far beyond its limit that it was emptied while the build ran. */
  emptied: number;
  /** For the build's log. */
  lines: string[];
}

interface Info {
  used_at: number;
  /** Of the last build that started with nothing in the cache, and of the last one. */
  empty_ms: number | null;
  last_ms: number | null;
}

/** While a build runs it may be this much over; a smaller overrun is evicted afterwards. */
const SLACK = 1.25;
const CHECK_MS = 2000;
/** Folders in which tools keep more than what they downloaded, and what of it stays. */
const KEPT: Record<string, readonly string[]> = {
  cargo: ['registry', 'git'],
  hex: ['packages', 'cache.ets'],
  gradle: ['caches', 'wrapper', 'native', 'jdks'],
};
const TRASH = 'trash-';

/** Environment of a build that sees the cache at `dir`. A tool not named here follows XDG_CACHE_HOME, or is not cached. */
export function cacheEnvironment(dir: string): Record<string, string> {
  return {
    KILN_CACHE_DIR: dir,
    // pip, uv, poetry, yarn 1, go build, bun, deno, corepack, node-gyp, Playwright
    XDG_CACHE_HOME: `${dir}/xdg`,
    ...{ npm_config_cache: `${dir}/npm`, pnpm_config_store_dir: `${dir}/pnpm` },
    ...{ YARN_GLOBAL_FOLDER: `${dir}/yarn`, GOMODCACHE: `${dir}/go`, CARGO_HOME: `${dir}/cargo` },
    ...{ HEX_HOME: `${dir}/hex`, MAVEN_OPTS: `-Dmaven.repo.local=${dir}/maven` },
    ...{ GRADLE_USER_HOME: `${dir}/gradle`, COMPOSER_CACHE_DIR: `${dir}/composer` },
    ...{ BUNDLE_USER_CACHE: `${dir}/bundle`, BUNDLE_GLOBAL_GEM_CACHE: 'true' },
  };
}

export async function openCache(o: CacheFolder): Promise<Cache> {
  const content = join(o.dir, 'content');
  await mkdir(content, { recursive: true, mode: 0o700 });
  await removeTrash(o.dir);
  const info = await readInfo(o.dir);
  await writeInfo(o.dir, { ...info, used_at: Date.now() });
  const before_bytes = await bytesOf(content);
  const guard = watchCache(o, content);
  return {
    spec: { dir: content, max_bytes: o.max_bytes },
    before_bytes,
    line: before_bytes === 0 ? 'cache: empty' : `cache: ${megabytes(before_bytes)} from earlier builds`,
    async close(duration_ms) {
      const emptied = await guard.stop();
      const lines = emptied > 0 ? [`cache: emptied, it was over ${megabytes(o.max_bytes)}`] : [];
      const bytes = await shrink(o, content).catch(() => 0);
      if (duration_ms !== null) {
        lines.push(timeLine(info, before_bytes, bytes, duration_ms));
        const empty_ms = before_bytes === 0 ? duration_ms : info.empty_ms;
        await writeInfo(o.dir, { used_at: Date.now(), empty_ms, last_ms: duration_ms });
      }
      return { bytes, emptied, lines };
    },
  };
}

/** Both times, so that nobody has to believe a difference. */
function timeLine(info: Info, before_bytes: number, bytes: number, duration_ms: number): string {
  const kept = `cache: ${megabytes(bytes)} kept`;
  if (before_bytes === 0) return kept;
  const earlier = [
    ...(info.empty_ms === null ? [] : [`${seconds(info.empty_ms)} with an empty cache`]),
    ...(info.last_ms === null ? [] : [`${seconds(info.last_ms)} the last time`]),
  ];
  const now = `the commands took ${seconds(duration_ms)}`;
  return `${kept}; ${now}${earlier.length > 0 ? ` (${earlier.join(', ')})` : ''}`;
}

/** Looks at the size while a build runs, at most 1/20 of the time, and empties a cache that grew far too large. */
function watchCache(o: CacheFolder, content: string): { stop(): Promise<number> } {
  let emptied = 0;
  let next_at = 0;
  let running: Promise<void> | null = null;
  async function check(): Promise<void> {
    const { bytes, took_ms } = await countBytes([content]);
    next_at = performance.now() + took_ms * 20;
    if (bytes <= o.max_bytes * SLACK) return;
    emptied++;
    await empty(o.dir, content);
  }
  const timer = setInterval(() => {
    if (running !== null || performance.now() < next_at) return;
    running = check()
      .catch(() => undefined)
      .finally(() => {
        running = null;
      });
  }, CHECK_MS);
  return {
    async stop() {
      clearInterval(timer);
      await running;
      return emptied;
    },
  };
}

/**
 * Safe while a machine runs, which may put links in the way at any time: what is in the folder is moved where no
 * machine sees it, and removed by `rm`, which goes by open folders and follows nothing.
 */
async function empty(dir: string, content: string): Promise<void> {
  const trash = join(dir, TRASH + randomBytes(6).toString('hex'));
  await mkdir(trash, { mode: 0o700 });
  for (const name of await readdir(content))
    await rename(join(content, name), join(trash, name)).catch(() => 0);
  await promisify(execFile)('rm', ['-rf', '--', trash]).catch(() => undefined);
}

/** Down to the limit, the longest unused first; a tool's cache goes as a whole, for half of one would break its next build. */
async function shrink(o: CacheFolder, content: string): Promise<number> {
  await removeTrash(o.dir);
  for (const [tool, kept] of Object.entries(KEPT))
    for (const name of await foldersOnly(join(content, tool)))
      if (!kept.includes(name)) await removeTree(join(content, tool, name));
  let bytes = await bytesOf(content);
  if (bytes <= o.max_bytes) return bytes;
  const units = (await foldersOnly(content))
    .filter((name) => name !== 'xdg')
    .map((name) => join(content, name));
  for (const name of await foldersOnly(join(content, 'xdg'))) units.push(join(content, 'xdg', name));
  const by_age = await Promise.all(units.map(async (path) => ({ path, at: await newest(path) })));
  for (const { path } of by_age.sort((a, b) => a.at - b.at)) {
    if (bytes <= o.max_bytes) break;
    await removeTree(path);
    bytes = await bytesOf(content);
  }
  if (bytes > o.max_bytes) await empty(o.dir, content);
  return bytesOf(content);
}

/** What is in a folder; nothing when it is a link, which a build may have left to lead elsewhere. */
async function foldersOnly(dir: string): Promise<string[]> {
  const info = await promisify(execFile)(
    'find',
    [dir, '-mindepth', '1', '-maxdepth', '1', '-printf', '%f\\0'],
    {
      maxBuffer: 16 << 20,
    },
  ).catch(() => ({ stdout: '' }));
  return info.stdout.split('\0').filter((name) => name !== '');
}

/** When something was last written in a folder, two levels down at most. */
async function newest(path: string): Promise<number> {
  const { stdout } = await promisify(execFile)('find', [path, '-maxdepth', '2', '-printf', '%T@\\n'], {
    maxBuffer: 16 << 20,
  }).catch(() => ({ stdout: '0' }));
  return stdout.split('\n').reduce((most, line) => Math.max(most, Number(line) || 0), 0);
}

/**
 * Removes the caches of deployments that are gone, then the longest unused until all together are within the
 * limit. `busy` are those in use. Returns the ids removed.
 */
export async function collectCaches(o: {
  /** Holds one folder per deployment id. */
  dir: string;
  total_max_bytes: number;
  living: ReadonlySet<string>;
  busy: ReadonlySet<string>;
}): Promise<string[]> {
  const removed: string[] = [];
  const remove = async (id: string) => {
    removed.push(id);
    await removeTree(join(o.dir, id));
  };
  const kept: { id: string; bytes: number; used_at: number }[] = [];
  for (const id of await readdir(o.dir).catch(() => [])) {
    if (o.busy.has(id)) continue;
    if (!o.living.has(id)) await remove(id);
    else {
      const dir = join(o.dir, id);
      kept.push({ id, bytes: await bytesOf(dir), used_at: (await readInfo(dir)).used_at });
    }
  }
  let total = kept.reduce((sum, one) => sum + one.bytes, 0);
  for (const one of kept.sort((a, b) => a.used_at - b.used_at)) {
    if (total <= o.total_max_bytes) break;
    await remove(one.id);
    total -= one.bytes;
  }
  return removed;
}

async function removeTrash(dir: string): Promise<void> {
  for (const name of await readdir(dir).catch(() => []))
    if (name.startsWith(TRASH)) await removeTree(join(dir, name));
}

/** Without the folders themselves, so that an empty cache has no bytes. */
async function bytesOf(dir: string): Promise<number> {
  const names = await readdir(dir).catch(() => []);
  return names.length === 0 ? 0 : (await countBytes(names.map((name) => join(dir, name)))).bytes;
}

async function readInfo(dir: string): Promise<Info> {
  const found = await stat(dir).catch(() => null);
  const none: Info = { used_at: found?.mtimeMs ?? 0, empty_ms: null, last_ms: null };
  try {
    return { ...none, ...(JSON.parse(await readFile(join(dir, 'cache.json'), 'utf8')) as Partial<Info>) };
  } catch {
    return none;
  }
}

/** A lost write costs a line in a log. */
async function writeInfo(dir: string, info: Info): Promise<void> {
  const path = join(dir, 'cache.json');
  const fresh = `${path}.${basename(dir)}.new`;
  await writeFile(fresh, JSON.stringify(info)).catch(() => undefined);
  await rename(fresh, path).catch(() => rm(fresh, { force: true }));
}

const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`;
