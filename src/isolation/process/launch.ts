import type { MachineSpec } from '../driver.ts';
import { type Launch, shellArguments } from '../machine.ts';

/**
 * The command as a plain process of this host, in a session of its own. `setpriv` lets the kernel kill the main
 * process with the engine; its children are found by their mark at the next start (`sweep`).
 */
export function processLaunch(o: {
  spec: MachineSpec;
  cwd: string;
  env: Record<string, string>;
  setpriv: string | null;
  limit_arguments: string[];
}): Launch {
  const setpriv = o.setpriv === null ? [] : [o.setpriv, '--pdeathsig', 'KILL', '--'];
  const [file, ...args] = [...setpriv, ...o.limit_arguments, ...shellArguments(o.spec)] as [
    string,
    ...string[],
  ];
  return { file, args, env: o.env, cwd: o.cwd, input: null, pid_namespace: false };
}
