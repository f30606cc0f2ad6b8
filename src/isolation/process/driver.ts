import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describeBase } from '../base.ts';
import { cacheEnvironment } from '../cache.ts';
import type { DriverOptions, IsolationDriver, SelfTest } from '../driver.ts';
import { openHost } from '../host.ts';
import { startMachine } from '../machine.ts';
import { withMovedPort } from '../moved-port/moved-port.ts';
import { findProgram } from '../program.ts';
import { runForTest } from '../self-test.ts';
import { machinePath, searchEntries } from '../toolchain.ts';
import { processLaunch } from './launch.ts';

/**
 * Runs machines as ordinary processes of this host. It isolates nothing: for machines that need no trust boundary,
 * and where nothing stronger works. Limits, environment and clean-up are the same as everywhere.
 */
export function processDriver(o: DriverOptions): IsolationDriver {
  const host = openHost(o);
  const driver: IsolationDriver = {
    name: 'process',
    capabilities: {
      hides_host_files: false,
      hides_host_processes: false,
      fixed_workspace_path: false,
      dies_with_engine: false,
      limits_network: false,
      copies_workspace: false,
    },
    async selfTest(): Promise<SelfTest> {
      if (!existsSync('/proc/self/environ'))
        return { ok: false, reason: 'there is no Linux /proc to watch processes with', install: null };
      const seen = await runForTest(driver, o.work_dir, 'echo works');
      if (seen !== 'works') return { ok: false, reason: `a test command answered: ${seen}`, install: null };
      return { ok: true, detail: 'runs commands as plain processes; isolates nothing' };
    },
    base: () => describeBase(host.search_path, host.answers, 'moving'),
    start: (spec) =>
      startMachine(host, spec, ({ private_dir, tools, registry, marks, limit_arguments, preload_dir }) => {
        // Tools that Kiln does not know keep working here: the host's search path comes after the known ones.
        const path = [...machinePath(tools, host.search_path).split(':'), ...searchEntries(host.search_path)];
        const env = {
          PATH: [...new Set(path)].join(':'),
          HOME: join(private_dir, 'home'),
          TMPDIR: join(private_dir, 'tmp'),
          LANG: 'C.UTF-8',
          ...registry.env,
          ...(spec.cache && spec.kind === 'build' ? cacheEnvironment(spec.cache.dir) : {}),
          ...(preload_dir === null ? spec.env : withMovedPort(spec.env, spec.moved_port!, preload_dir)),
          ...marks,
        };
        const cwd = join(spec.workspace_dir, spec.cwd);
        return processLaunch({ spec, cwd, env, setpriv: findProgram('setpriv'), limit_arguments });
      }),
    tools: host.tools,
    sweep: host.sweep,
  };
  return driver;
}
