/** Operations: what became of a publish, promote or rollback; and stopping one. */
import { isFinished, type Operation } from '../domain/operation.ts';
import { publishOfVersion } from '../store/operation.ts';
import { type AnyCall, data, handle, type Mounted } from './call.ts';
import * as contract from './contract/operation.ts';
import { findDeployment, findOperation, findVersion, iso, notFound } from './find.ts';
import { waitMs } from './wait.ts';

export function presentOperation(o: Operation): contract.OperationView {
  return {
    id: o.id,
    tenant_id: o.tenant_id,
    kind: o.kind,
    deployment_id: o.deployment_id,
    version_id: o.version_id,
    state: o.state,
    stage: o.stage,
    attempt: o.attempt,
    promoted: o.promoted,
    superseded: o.superseded,
    failure: o.failure,
    result: o.result,
    cancel_requested_at: iso(o.cancel_requested_at),
    created_at: iso(o.created_at),
    started_at: iso(o.started_at),
    finished_at: iso(o.finished_at),
  };
}

/** Cancelling what is finished changes nothing and shows how it ended. */
async function cancel(call: AnyCall, operation: Operation) {
  if (isFinished(operation.state)) return data(presentOperation(operation));
  return data(presentOperation(await call.deps.engine.cancel(operation.id)));
}

export const operationHandlers: Mounted[] = [
  handle(contract.getOperation, async (call) => {
    const operation = await findOperation(call, call.params.operation_id);
    const wait_ms = waitMs(call.request, call.query.wait);
    if (wait_ms === 0 || isFinished(operation.state)) return data(presentOperation(operation));
    return data(
      presentOperation(await call.deps.engine.waitForOperation(operation.id, wait_ms, call.signal)),
    );
  }),
  handle(contract.cancelOperation, async (call) =>
    cancel(call, await findOperation(call, call.params.operation_id)),
  ),
  handle(contract.verifyVersion, async (call) => {
    const deployment = await findDeployment(call, call.params.id);
    const version = await findVersion(call, deployment.id, call.params.version_id);
    const wait_ms = waitMs(call.request, call.query.wait);
    const { engine } = call.deps;
    const previous = call.idempotency?.previous;
    const known = previous ? await engine.acceptedBefore(previous) : null;
    const accepted =
      known?.operation ?? (await engine.verify(version, { idempotency: call.idempotency?.scope ?? null }));
    const operation =
      wait_ms === 0 ? accepted : await engine.waitForOperation(accepted.id, wait_ms, call.signal);
    return data(presentOperation(operation), isFinished(operation.state) ? 200 : 202);
  }),
  handle(contract.cancelVersion, async (call) => {
    const deployment = await findDeployment(call, call.params.id);
    const version = await findVersion(call, deployment.id, call.params.version_id);
    const operation = await publishOfVersion(call.deps.database.db, version.id);
    if (!operation) throw notFound('publish of version', version.id);
    return cancel(call, operation);
  }),
];
