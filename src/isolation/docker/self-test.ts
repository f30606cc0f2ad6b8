import { randomBytes } from 'node:crypto';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { DriverOptions, IsolationDriver, SelfTest } from '../driver.ts';
import { runForTest } from '../self-test.ts';
import { quoted } from '../shell.ts';
import { type Daemon, daemonProblem } from './engine.ts';

/** Runs a machine that tries to look outside; it must see nothing of the host and have nothing to write to. */
export async function selfTest(
  daemon: Daemon,
  o: DriverOptions,
  start: IsolationDriver['start'],
): Promise<SelfTest> {
  const problem = await daemonProblem(daemon);
  if (problem !== null) return problem;
  const bait = join(o.data_dir, `.selftest-${randomBytes(8).toString('hex')}`);
  await writeFile(bait, 'bait', { mode: 0o600 });
  const script = [
    'fail() { echo "$1"; exit 1; }',
    `[ ! -e ${quoted(bait)} ] || fail "the data folder is visible"`,
    '[ "$$" -lt 30 ] || fail "processes of the host are visible"',
    '[ ! -w /proc/sys/kernel/core_pattern ] || fail "kernel settings can be written"',
    'for dir in / /usr /etc /dev; do ! [ -w $dir ] || fail "$dir can be written"; done',
    'grep -q "^CapBnd:[[:space:]]*0*$" /proc/self/status || fail "capabilities are left"',
    'grep -q "^NoNewPrivs:[[:space:]]*1" /proc/self/status || fail "privileges can be gained"',
    '[ "$(grep -c : /proc/net/dev)" = 1 ] || fail "there is a network"',
    'touch /workspace/x /tmp/x "$HOME/x" || fail "nothing can be written"',
    'echo works',
  ].join('\n');
  try {
    const seen = await runForTest({ start }, o.work_dir, script);
    if (seen !== 'works') return { ok: false, reason: `a test machine did not work: ${seen}`, install: null };
    const { ServerVersion } = await daemon.client().info();
    return { ok: true, detail: `Docker ${ServerVersion}; containers without capabilities and network` };
  } finally {
    await rm(bait, { force: true });
  }
}

/** How many parts of a version decide what runs where: as in `base.ts`, for tools of an image. */
const DESCRIBE = [
  'getconf GNU_LIBC_VERSION 2>/dev/null | tr " " - || true',
  'node --version 2>/dev/null | sed -n "s/^v\\([0-9]*\\)\\..*/node-\\1/p"',
  'python3 --version 2>/dev/null | sed -n "s/^Python \\([0-9]*\\.[0-9]*\\).*/python3-\\1/p"',
  'go env GOVERSION 2>/dev/null | sed -n "s/^go\\([0-9]*\\.[0-9]*\\).*/go-\\1/p"',
  `elixir --version 2>/dev/null | sed -n 's/^Elixir \\([0-9]*\\.[0-9]*\\).*/elixir-\\1/p'`,
  'bun --version 2>/dev/null | sed -n "s/^\\([0-9]*\\.[0-9]*\\).*/bun-\\1/p"',
  'deno --version 2>/dev/null | sed -n "s/^deno \\([0-9]*\\)\\..*/deno-\\1/p"',
].join('\n');

/** What a release built in this image can run on, in the words of `base.ts`: the tools are asked inside. */
export async function describeImage(
  start: IsolationDriver['start'],
  work_dir: string,
  system: string,
): Promise<string> {
  const seen = await runForTest({ start }, work_dir, `${DESCRIBE}\ntrue`);
  const facts = seen.split('\n').filter((line) => /^[\w.-]+$/.test(line));
  return [
    system,
    ...(facts[0]?.startsWith('glibc') ? [] : ['libc-unknown']),
    ...facts,
    'workspace-fixed',
  ].join(';');
}
