import type { Command } from 'commander';
import { explainPlan, explainRefusal } from '../../build/explain.ts';
import { diskFiles, withoutPaths } from '../../build/files.ts';
import { makePlan, type PlanResult } from '../../build/plan.ts';
import { makeExclusion } from '../../source/exclude.ts';
import { type Bind, examples } from '../cli.ts';
import { EXIT } from '../exit.ts';
import { readFolder } from '../folder.ts';
import { addPlanOptions, overridesOf, type PlanOptions } from '../plan-options.ts';
import { heldPortNote } from './held-port.ts';

export function define(command: Command, bind: Bind): void {
  command.argument('[path]', 'folder of the app', '.');
  addPlanOptions(command);
  examples(command, [
    ['kiln plan ./my-app', 'what would happen, and why'],
    ['kiln plan ./my-app --json', 'the plan as data'],
    ["kiln plan . --run-command 'node server.js'", 'with a command of yours'],
  ]);
  command.action(
    bind(async (cli, given: string, options: PlanOptions) => {
      const folder = readFolder(cli.cwd, given);
      const planned = planFolder(folder, { overrides: overridesOf(options), env: definedOnly(cli.env) });
      if (planned.ok) {
        const held = await heldPortNote(cli, planned.plan);
        if (held !== null) planned.plan.warnings.push(held);
        cli.out.result(planned.plan, () => cli.out.line(explainPlan(planned.plan)));
        return EXIT.ok;
      }
      const { refusal } = planned;
      const exit_code = refusal.code === 'INVALID_CONFIG' ? EXIT.input : EXIT.build;
      cli.out.result({ ok: false, exit_code, error: refusal }, () => cli.out.note(explainRefusal(refusal)));
      return exit_code;
    }),
  );
}

/**
 * Planned twice, as a publish does it: the first plan, of the whole folder, says whether folders such as dist are what is
 * published; the second sees what a snapshot then holds.
 */
function planFolder(folder: string, o: Parameters<typeof makePlan>[1]): PlanResult {
  const whole = makePlan(diskFiles(folder), o);
  const files = diskFiles(folder);
  const exclusion = makeExclusion({
    kilnignore: files.read('.kilnignore'),
    output_path: o.overrides.output_path ?? null,
    include_git: false,
    keep_outputs: whole.ok && whole.plan.kind === 'static' && whole.plan.build.length === 0,
    exists: (path) => files.exists(path),
  });
  return makePlan(
    withoutPaths(files, (path, is_dir) => exclusion(path, is_dir) !== null),
    o,
  );
}

function definedOnly(env: Record<string, string | undefined>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(env).filter((pair): pair is [string, string] => pair[1] !== undefined),
  );
}
