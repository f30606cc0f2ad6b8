/** Runs a plan's commands: one machine each where machines are cheap, one for all where they take seconds to start. */
import { randomBytes } from 'node:crypto';
import type { Failure } from '../domain/failure.ts';
import type { Plan } from '../domain/plan.ts';
import type { MachineExit } from '../isolation/driver.ts';
import { setBuildState } from '../store/build.ts';
import { buildFailure } from './build-failure.ts';
import { commandScript, markFilter } from './command-script.ts';
import type { Run } from './run.ts';
import { SOURCE_DATE_EPOCH } from './source-date-epoch.ts';
import type { VersionEnv } from './version-env.ts';

/** Null when all of them succeeded. */
export async function runCommands(
  run: Run,
  plan: Plan,
  dir: string,
  env: VersionEnv,
): Promise<Failure | null> {
  const until = Date.now() + run.limits.build.time_ms;
  if (run.builder.name === 'process')
    run.log.note(
      'isolation: process. It isolates nothing: this build can read and change what the engine can.',
    );
  const commands = [...plan.install, ...plan.build];
  const together = run.builder.capabilities.copies_workspace;
  let peak_memory_bytes = 0;
  for (const batch of together ? [commands] : commands.map((command) => [command])) {
    const { exit, command } = await runBatch(run, { plan, dir, env, commands: batch, until });
    run.signal.throwIfAborted();
    peak_memory_bytes = Math.max(peak_memory_bytes, exit.peak_memory_bytes);
    const problem = buildFailure(exit, command, run.limits.build, run.log.tail(50));
    run.log.note(`${problem ? 'failed' : 'done'} in ${(exit.duration_ms / 1000).toFixed(1)} s`);
    if (problem) return problem;
  }
  await run.record((trx) => setBuildState(trx, run.version.build_id, 'building', { peak_memory_bytes }));
  return null;
}

/** The commands in one machine, and the one that it ended with. */
async function runBatch(
  run: Run,
  of: { plan: Plan; dir: string; env: VersionEnv; commands: string[]; until: number },
): Promise<{ exit: MachineExit; command: string }> {
  const { commands } = of;
  let command = commands[0]!;
  const began = (index: number) => {
    command = commands[index] ?? command;
    run.log.note(`$ ${command}`);
  };
  const nonce = randomBytes(8).toString('hex');
  const filter = markFilter(nonce, (chunk) => run.log.write('stdout', chunk), began);
  const one = commands.length === 1;
  if (one) began(0);
  const exit = await runMachine(run, {
    ...of,
    command: one ? command : commandScript(commands, nonce),
    on_output: (stream, chunk) =>
      one || stream === 'stderr' ? run.log.write(stream, chunk) : filter.write(chunk),
  });
  filter.end();
  return { exit, command };
}

async function runMachine(
  run: Run,
  of: {
    plan: Plan;
    dir: string;
    env: VersionEnv;
    command: string;
    until: number;
    on_output: (stream: 'stdout' | 'stderr', chunk: Buffer) => void;
  },
): Promise<MachineExit> {
  const machine = await run.builder.start({
    id: run.newId('mch'),
    kind: 'build',
    workspace_dir: of.dir,
    cwd: of.plan.root,
    command: of.command,
    env: {
      CI: 'true',
      KILN: '1',
      SOURCE_DATE_EPOCH: String(SOURCE_DATE_EPOCH),
      ...of.plan.build_env,
      ...of.env.vars,
    },
    limits: { ...run.limits.build, time_ms: Math.max(1, of.until - Date.now()) },
    network: run.network,
    on_output: of.on_output,
  });
  const stop = () => void machine.stop(1000);
  run.signal.addEventListener('abort', stop, { once: true });
  if (run.signal.aborted) stop();
  try {
    return await machine.exited;
  } finally {
    run.signal.removeEventListener('abort', stop);
  }
}
