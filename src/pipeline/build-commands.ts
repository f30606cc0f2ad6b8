/** Runs a plan's commands: one machine each where machines are cheap, one for all where they take seconds to start. */
import { randomBytes } from 'node:crypto';
import { describeReport, mergeReports } from '../domain/build-report.ts';
import type { Failure } from '../domain/failure.ts';
import type { Plan } from '../domain/plan.ts';
import type { CacheFolder, MachineExit } from '../isolation/driver.ts';
import { setBuildReport } from '../store/build.ts';
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
  const until_ms = performance.now() + run.limits.build.time_ms;
  if (run.builder.name === 'process')
    run.log.note(
      'isolation: process. It isolates nothing: this build can read and change what the engine can.',
    );
  const commands = [...plan.install, ...plan.build];
  const together = run.builder.capabilities.copies_workspace;
  const cache = (await run.openCache?.(run.deployment.id)) ?? null;
  if (cache !== null) run.log.note(cache.line);
  const exits: MachineExit[] = [];
  let problem: Failure | null = null;
  let complete = false;
  try {
    for (const batch of together ? [commands] : commands.map((command) => [command])) {
      const of = { plan, dir, env, commands: batch, until_ms, cache: cache?.spec ?? null };
      const { exit, command } = await runBatch(run, of);
      run.signal.throwIfAborted();
      exits.push(exit);
      problem = buildFailure(exit, command, run.limits.build, run.log.tail(200));
      run.log.note(`${problem ? 'failed' : 'done'} in ${(exit.duration_ms / 1000).toFixed(1)} s`);
      if (problem) break;
    }
    complete = problem === null;
  } finally {
    const took_ms = exits.reduce((sum, exit) => sum + exit.duration_ms, 0);
    const kept = await cache?.close(complete ? took_ms : null);
    for (const line of kept?.lines ?? []) run.log.note(line);
  }
  await recordReport(run, exits);
  return problem;
}

/** What the machines of a build used, in its log and its row. */
export async function recordReport(run: Run, exits: readonly MachineExit[]): Promise<void> {
  const report = mergeReports(exits);
  run.log.note(describeReport(report));
  await run.record((trx) => setBuildReport(trx, run.version.build_id, report));
}

/** The commands in one machine, and the one that it ended with. */
async function runBatch(
  run: Run,
  of: {
    plan: Plan;
    dir: string;
    env: VersionEnv;
    commands: string[];
    until_ms: number;
    cache: CacheFolder | null;
  },
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
    until_ms: number;
    cache: CacheFolder | null;
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
    limits: { ...run.limits.build, time_ms: Math.max(1, of.until_ms - performance.now()) },
    network: run.network,
    cache: of.cache,
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
