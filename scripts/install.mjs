// Installs the dependencies when they are missing or package-lock.json has changed since the last time; otherwise says
// and does nothing (a few milliseconds). Plain JavaScript for any Node from 20 on, because it runs before Node 24 is there.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.join(path.dirname(fileURLToPath(import.meta.url)), '..');
const modules = path.join(root, 'node_modules');
const stamp = path.join(modules, '.kiln-installed');
const lock = path.join(root, 'package-lock.json');
const OUT_OF_SYNC = /EUSAGE|in sync/;
const MAX_OUTPUT_BYTES = 64 * 1024 * 1024;

// Platform and architecture too: some packages are binaries, and a folder may be carried to another machine.
function wanted() {
  return createHash('sha256')
    .update(existsSync(lock) ? readFileSync(lock) : readFileSync(path.join(root, 'package.json')))
    .update(`${process.platform} ${process.arch}`)
    .digest('hex');
}

const installed = readStamp();
if (installed === null && npmDidItByHand()) writeFileSync(stamp, `${wanted()}\n`);
else if (installed !== wanted()) install();
prepareDatabase();

/** Somebody ran npm here since the lock file changed: npm's own list of what it installed is the newer of the two. */
function npmDidItByHand() {
  const list = path.join(modules, '.package-lock.json');
  return existsSync(list) && existsSync(lock) && statSync(list).mtimeMs >= statSync(lock).mtimeMs;
}

function readStamp() {
  try {
    return readFileSync(stamp, 'utf8').trim();
  } catch {
    return null;
  }
}

function install() {
  const why = existsSync(modules) ? 'package-lock.json has changed' : 'first run';
  console.error(`Installing dependencies (${why}; needs the network, takes up to a minute)…`);
  const failed = tryAll();
  if (failed) {
    explain(failed);
    process.exit(1);
  }
  mkdirSync(modules, { recursive: true });
  // Anew: `npm install` may have brought the lock file up to date.
  writeFileSync(stamp, `${wanted()}\n`);
}

/** So that first starts need no initdb (2.5 s) and make no tables. Where it does not work they do it themselves. */
function prepareDatabase() {
  const node = path.join(modules, 'node', 'bin', 'node');
  const manifest = path.join(modules, '@electric-sql', 'pglite', 'package.json');
  if (!existsSync(node) || !existsSync(manifest)) return;
  // The same as `preparedFolder` in src/store/prepared.ts, which this Node may be too old to load.
  const { version } = JSON.parse(readFileSync(manifest, 'utf8'));
  const migrations = path.join(root, 'src', 'store', 'migrations');
  const hash = createHash('sha256');
  for (const name of readdirSync(migrations).sort())
    hash.update(name).update(readFileSync(path.join(migrations, name)));
  const digest = hash.digest('hex').slice(0, 12);
  if (existsSync(path.join(modules, '.kiln', `database-${version}-${digest}`))) return;
  console.error('Preparing an empty database for first starts (once, 3 seconds)…');
  const script = path.join(root, 'scripts', 'prepare-database.ts');
  spawnSync(node, [script], { stdio: ['ignore', 'ignore', 'inherit'], timeout: 60_000 });
}

/**
 * `npm ci` takes exactly what the lock file says; a second try helps against a flaky network. `npm install` helps when
 * the lock file lacks what this platform or this npm wants, which no repetition would.
 */
function tryAll() {
  return packages() ?? run('rebuild', 'node');
}

function packages() {
  if (!existsSync(lock)) return run('install') && run('install');
  const first = run('ci');
  if (!first) return null;
  if (!OUT_OF_SYNC.test(first.output) && !run('ci')) return null;
  return run('install');
}

/**
 * Null when it worked, else what went wrong. Scripts of packages do not run (some compile for a minute what Kiln does
 * not use), but for the one of `node`, which puts the binary in its place.
 */
function run(command, ...names) {
  const scripts = command === 'rebuild' ? [] : ['--ignore-scripts'];
  const npm = process.platform === 'win32' ? 'npm.cmd' : 'npm';
  const done = spawnSync(
    npm,
    [command, ...names, ...scripts, '--no-audit', '--no-fund', '--loglevel=error'],
    {
      cwd: root,
      encoding: 'utf8',
      maxBuffer: MAX_OUTPUT_BYTES,
      shell: process.platform === 'win32',
    },
  );
  if (done.signal === 'SIGINT' || done.signal === 'SIGTERM') process.exit(130);
  if (done.status === 0) return null;
  return {
    command: `npm ${command}`,
    error: done.error ?? null,
    output: `${done.stdout ?? ''}${done.stderr ?? ''}`,
  };
}

function explain({ command, error, output }) {
  const tail = output.trim().split('\n').slice(-20).join('\n');
  if (tail !== '') console.error(tail);
  console.error(`\nThe dependencies could not be installed: ${command} failed. ${nextStep(error, output)}`);
}

function nextStep(error, output) {
  if (error?.code === 'ENOENT')
    return 'There is no npm in PATH: install Node.js 20 or newer, which brings it.';
  if (/ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT|ECONNRESET|network/i.test(output))
    return 'The package registry is not reachable: check the network, a proxy (`npm config get proxy`) or the registry (`npm config get registry`), and start again.';
  if (/ENOSPC/.test(output))
    return `The disk is full: make room for about 400 MB in ${root}, and start again.`;
  if (/EACCES|EPERM|EROFS/.test(output))
    return `npm may not write in ${root}: use a folder that belongs to you.`;
  return `Look at the lines above, and try \`npm ci\` in ${root}.`;
}
