/** A key that may only propose a promotion leaves an approval; a key that may promote decides. */
import type { Approval } from '../domain/approval.ts';
import { KilnError } from '../domain/errors.ts';
import type { Version } from '../domain/version.ts';
import {
  decideApproval,
  ensureApproval,
  expireApprovals,
  getApproval,
  listApprovals,
  recordApprovalOperation,
} from '../store/approval.ts';
import { type AnyCall, data, handle, type Mounted, reply } from './call.ts';
import * as contract from './contract/approval.ts';
import { findVersion, inProject, iso, notFound, pageOf } from './find.ts';
import { switchTo } from './promotion.ts';

const LIFETIME_MS = 7 * 24 * 3600 * 1000;

function view(row: Approval): contract.ApprovalView {
  return {
    ...row,
    expires_at: iso(row.expires_at),
    decided_at: iso(row.decided_at),
    created_at: iso(row.created_at),
  };
}

/** Errors: APPROVAL_REQUIRED, always; the approval it names is there and waits. */
export async function askForApproval(
  call: AnyCall,
  version: Version,
  kind: 'promote' | 'rollback',
): Promise<never> {
  const { deps, caller } = call;
  const approval = await ensureApproval(deps.database.db, {
    id: deps.newId('apr'),
    tenant_id: caller.tenant_id,
    project_id: version.project_id,
    deployment_id: version.deployment_id,
    version_id: version.id,
    kind,
    requested_by: caller.key.id,
    expires_at: new Date(deps.now().getTime() + LIFETIME_MS),
  });
  throw new KilnError(
    'APPROVAL_REQUIRED',
    `This key may only propose to ${kind}; production is unchanged. Somebody must approve ${approval.id} until ${iso(approval.expires_at)}.`,
    {
      details: {
        approval_id: approval.id,
        expires_at: iso(approval.expires_at),
        next_step: `POST /api/v1/approvals/${approval.id}/approve with a key that may promote.`,
      },
    },
  );
}

async function find(call: AnyCall, id: string): Promise<Approval> {
  const { db } = call.deps.database;
  await expireApprovals(db);
  const row = await getApproval(db, call.caller.tenant_id, id);
  if (!row || !inProject(call, row)) throw notFound('approval', id);
  return row;
}

async function decide(call: AnyCall, id: string, state: 'approved' | 'denied'): Promise<Approval> {
  const { db } = call.deps.database;
  const row = await find(call, id);
  const decided = await decideApproval(db, row.id, { state, decided_by: call.caller.key.id });
  if (decided) return decided;
  // The same decision again, after its answer was lost: go on where it stopped.
  const now = await find(call, id);
  if (now.state === state && now.decided_by === call.caller.key.id && now.operation_id === null) return now;
  throw new KilnError('CONFLICT', `The approval ${id} is ${now.state} already.`);
}

export const approvalHandlers: Mounted[] = [
  handle(contract.listApprovals, async (call) => {
    const { db } = call.deps.database;
    await expireApprovals(db);
    const { tenant_id, project_id } = call.caller;
    const of = { tenant_id, project_id, state: call.query.state };
    const page = await listApprovals(db, of, pageOf(call.query));
    return reply({ data: page.data.map(view), next_cursor: page.next_cursor });
  }),
  handle(contract.getApproval, async (call) => data(view(await find(call, call.params.approval_id)))),
  handle(contract.approve, async (call) => {
    const approval = await decide(call, call.params.approval_id, 'approved');
    const version = await findVersion(call, approval.deployment_id, approval.version_id);
    const switched = await switchTo(call, version, approval.kind, undefined);
    const { operation_id } = (switched.body as { data: { operation_id: string } }).data;
    await recordApprovalOperation(call.deps.database.db, approval.id, operation_id);
    return switched;
  }),
  handle(contract.deny, async (call) => data(view(await decide(call, call.params.approval_id, 'denied')))),
];
