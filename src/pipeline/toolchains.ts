/** Before anything is built: does the machine have the versions of languages that the plan asks for? */
import { checkToolchains } from '../build/toolchain-check.ts';
import { failure } from '../domain/failure.ts';
import type { Plan } from '../domain/plan.ts';
import type { IsolationDriver } from '../isolation/driver.ts';
import { failed, ok, type Result, type Run } from './run.ts';

/** The plan with what has to be fetched first, or why it cannot be carried out there. */
export async function withToolchains(
  run: Pick<Run, 'log'>,
  driver: Pick<IsolationDriver, 'tools'>,
  plan: Plan,
): Promise<Result<Plan>> {
  const offer = plan.toolchains.length === 0 ? undefined : await driver.tools?.();
  if (offer === undefined) return ok(plan);
  const checked = checkToolchains(plan, offer.offered, offer.looked_for);
  if (!checked.ok) {
    for (const line of [checked.message, checked.next_step]) run.log.note(line);
    const { message, next_step } = checked;
    return failed(failure({ stage: 'plan', code: 'TOOLCHAIN_MISSING', message, next_step }));
  }
  for (const warning of checked.warnings) run.log.note(warning);
  return ok(
    checked.warnings.length === 0
      ? checked.plan
      : { ...checked.plan, warnings: [...checked.plan.warnings, ...checked.warnings] },
  );
}
