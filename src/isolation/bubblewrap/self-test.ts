import { randomBytes } from 'node:crypto';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { DriverOptions, IsolationDriver, MachineSpec, SelfTest } from '../driver.ts';
import { NODE_INSIDE } from '../network/outlet.ts';
import { findProgram } from '../program.ts';
import { runForTest } from '../self-test.ts';
import { quoted } from '../shell.ts';
import type { UserNamespace } from './launch.ts';

const INSTALL_BWRAP =
  'Install bubblewrap: `apt install bubblewrap`, `dnf install bubblewrap`, `apk add bubblewrap` or `pacman -S bubblewrap`.';
const ALLOW_NAMESPACES =
  'Allow user namespaces: `sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=15000`; on Ubuntu 23.10 and later also an AppArmor profile for bwrap or `sysctl kernel.apparmor_restrict_unprivileged_userns=0`; in a container, run it with user namespaces permitted.';

type Starter = (spec: MachineSpec, user_namespace: UserNamespace) => ReturnType<IsolationDriver['start']>;

/**
 * Finds the strongest user namespace that works here by running a command that tries to look outside: it must not
 * see a file of the data folder, the engine's process, or anything to write to.
 */
export async function selfTest(
  o: DriverOptions,
  start: Starter,
): Promise<{ result: SelfTest; user_namespace: UserNamespace }> {
  if (findProgram('bwrap', o.host_env.PATH) === null) {
    const result: SelfTest = { ok: false, reason: 'bwrap is not installed', install: INSTALL_BWRAP };
    return { result, user_namespace: 'sealed' };
  }
  const bait = join(o.data_dir, `.selftest-${randomBytes(8).toString('hex')}`);
  await writeFile(bait, 'bait', { mode: 0o600 });
  const script = [
    'fail() { echo "$1"; exit 1; }',
    `[ ! -e ${quoted(bait)} ] || fail "the data folder is visible"`,
    '[ "$$" -lt 10 ] || fail "processes of the host are visible"',
    '[ ! -w /proc/sys/kernel/core_pattern ] || fail "kernel settings can be written"',
    'for dir in / /usr /etc /dev; do ! [ -w $dir ] || fail "$dir can be written"; done',
    'grep -q "^CapBnd:[[:space:]]*0*$" /proc/self/status || fail "capabilities are left"',
    'grep -q "^NoNewPrivs:[[:space:]]*1" /proc/self/status || fail "privileges can be gained"',
    '[ "$(grep -c : /proc/net/dev)" = 1 ] || fail "the network of the host is visible"',
    `${NODE_INSIDE} -e "require('net').connect(3128,'127.0.0.1',process.exit)" || fail "the proxy cannot be reached"`,
    'touch /workspace/x /tmp/x "$HOME/x" || fail "nothing can be written"',
    'echo works',
  ].join('\n');
  let reason = '';
  try {
    for (const user_namespace of candidates()) {
      const driver = { start: (spec: MachineSpec) => start(spec, user_namespace) };
      const seen = await runForTest(driver, o.work_dir, script);
      if (seen === 'works') return { result: { ok: true, detail: detail(user_namespace) }, user_namespace };
      reason ||= seen;
    }
  } finally {
    await rm(bait, { force: true });
  }
  const refused = /namespace|uid map|operation not permitted|permission denied/i.test(reason);
  return {
    result: {
      ok: false,
      reason: `a test machine did not work: ${reason}`,
      install: refused ? ALLOW_NAMESPACES : null,
    },
    user_namespace: 'sealed',
  };
}

/** Without a user namespace only root can make the others. */
function candidates(): UserNamespace[] {
  return process.getuid?.() === 0 ? ['sealed', 'plain', 'none'] : ['sealed', 'plain'];
}

function detail(user_namespace: UserNamespace): string {
  const user = { sealed: 'sealed user namespace', plain: 'user namespace', none: 'no user namespace' };
  return `own process, mount and ${user[user_namespace]}; builds have no network but the proxy`;
}
