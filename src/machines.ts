/** Which drivers this install could use, made from its configuration; isolation/choose.ts decides which it does. */
import type { Config } from './config.ts';
import type { Log } from './engine/context.ts';
import type { Folders } from './engine/folders.ts';
import { bubblewrapDriver } from './isolation/bubblewrap/driver.ts';
import { chooseIsolation, type Isolation } from './isolation/choose.ts';
import type { DriverOptions } from './isolation/driver.ts';
import { processDriver } from './isolation/process/driver.ts';

export async function openMachines(
  config: Config,
  o: { folders: Folders; host_env: Record<string, string>; say: Log },
): Promise<Isolation> {
  const options: DriverOptions = {
    data_dir: o.folders.data,
    work_dir: o.folders.machines,
    host_env: o.host_env,
  };
  return chooseIsolation(
    { builds: config.isolation, instances: config.instance_isolation },
    {
      host: [bubblewrapDriver(options), processDriver(options)],
      builders: [],
      runtimes: [],
      image_builders: [],
    },
  );
}
