/** Looking after the house: garbage collection and the doctor, for keys that may do everything. */
import { KilnError } from '../domain/errors.ts';
import { type AnyCall, data, handle, type Mounted } from './call.ts';
import * as contract from './contract/house.ts';

/** Both reach over all projects, so a key of one project gets neither. */
function refuseProjectKey(call: AnyCall): void {
  if (call.caller.project_id !== null)
    throw new KilnError('FORBIDDEN', 'A key of one project cannot look after the whole install.');
}

export const houseHandlers: Mounted[] = [
  handle(contract.runGc, async (call) => {
    refuseProjectKey(call);
    return data(await call.deps.engine.gc({ dry_run: call.query.dry_run === 'true' }));
  }),
  handle(contract.doctor, async (call) => {
    refuseProjectKey(call);
    return data(await call.deps.engine.doctor());
  }),
];
