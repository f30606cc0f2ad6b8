import type { Answers } from './answers.ts';
import type { DriverOptions, MachineSpec, ToolOffer } from './driver.ts';
import { DATA_MARK, lockLimit, MACHINE_MARK } from './marks.ts';
import { layOutPreloads } from './moved-port/moved-port.ts';
import { type HostNetwork, readHostNetwork } from './network/host-network.ts';
import { countTasks, makeScanner, type ProcessScanner } from './processes.ts';
import { findProgram, limitArguments } from './program.ts';
import { forKind, type RegistrySettings, readRegistrySettings } from './registry.ts';
import { makePrivateDir } from './scratch.ts';
import { dataKey, sweepMachines } from './sweep.ts';
import { ASKED_ANEW, findToolchains, TOOL_NAMES, type Toolchain } from './toolchain.ts';
import { makeSampler, type Sampler } from './watchdog.ts';

/** What the machines of one driver object share, and what every driver does alike before it launches one. */
export interface Host {
  scanner: ProcessScanner;
  sampler: Sampler;
  /** Ids of machines this driver object supervises. */
  running: Set<string>;
  /** Stands for the data folder in marks. */
  data_key: string;
  /** The engine's search path, from which the machines' own is made. */
  search_path: string;
  /** What its programs say of themselves. */
  answers: Answers;
  /** Holds the private folders of machines, by id. */
  work_dir: string;
  /** Makes what a (checked) spec's machine needs on this host. */
  prepare(spec: MachineSpec, private_dir: string): Promise<Prepared>;
  /** As `IsolationDriver.tools`. */
  tools(): Promise<ToolOffer>;
  /** As `IsolationDriver.sweep`. */
  sweep(keep: ReadonlySet<string>): Promise<string[]>;
}

export interface Prepared {
  /** The machine's own folder, with `tmp` and `home`. */
  private_dir: string;
  tools: Toolchain[];
  registry: RegistrySettings;
  /** What the host's own settings allow builds and execs to reach, and through what. */
  network: HostNetwork;
  /** Environment of the launcher by which its processes are found again. */
  marks: Record<string, string>;
  /** Goes in front of the launcher's command line. */
  limit_arguments: string[];
  /** Holds what moves the app's port; null when nothing does. */
  preload_dir: string | null;
}

export function openHost(o: DriverOptions): Host {
  const scanner = makeScanner();
  const running = new Set<string>();
  const data_key = dataKey(o.data_dir);
  const search_path = o.host_env.PATH ?? '';
  const answers = o.answers ?? ASKED_ANEW;
  let registry: Promise<RegistrySettings> | undefined;

  return {
    ...{ scanner, running, data_key, search_path, answers, work_dir: o.work_dir },
    sampler: makeSampler(scanner),
    async prepare(spec, private_dir) {
      registry ??= readRegistrySettings(o);
      const tools = findToolchains(search_path, answers);
      const all = await registry;
      const settings = forKind(all, spec.kind);
      await makePrivateDir(private_dir, settings.files);
      return {
        private_dir,
        tools: await tools,
        registry: settings,
        network: readHostNetwork(o.host_env, all),
        marks: { [MACHINE_MARK]: spec.id, [DATA_MARK]: data_key },
        limit_arguments: limitArguments({
          prlimit: findProgram('prlimit', search_path),
          limits: spec.limits,
          user_tasks: countTasks(),
          lock_limit: lockLimit(`${data_key}/${spec.id}`),
        }),
        preload_dir: spec.kind === 'instance' && spec.moved_port ? await layOutPreloads(private_dir) : null,
      };
    },
    tools: async () => ({ offered: await findToolchains(search_path, answers), looked_for: TOOL_NAMES }),
    sweep: (keep) =>
      sweepMachines({
        ...{ scanner, data_key, work_dir: o.work_dir },
        keep: (id) => keep.has(id) || running.has(id),
      }),
  };
}
