/** Where a new object goes: the workspace and project named or described by the caller, within what the key allows. */
import type { Project, Workspace } from '../domain/tenant.ts';
import type { Trx } from '../store/db.ts';
import { ensureOwner, type OwnerSelector } from '../store/tenant.ts';
import type { AnyCall } from './call.ts';
import { notFound } from './find.ts';

type Selector = { [K in keyof OwnerSelector]?: string | null | undefined };

/** Errors: NOT_FOUND for ids of nobody, or outside the key's project. */
export async function ownerFor(
  trx: Trx,
  call: AnyCall,
  by: Selector,
): Promise<{ workspace: Workspace; project: Project }> {
  const { caller, deps } = call;
  const selector = Object.fromEntries(
    Object.entries(by).filter(([, value]) => value !== null && value !== undefined && value !== ''),
  ) as OwnerSelector;
  // A key of one project creates there, whatever labels the request carries; naming another one is an error.
  if (caller.project_id !== null) {
    if (selector.project_id !== undefined && selector.project_id !== caller.project_id)
      throw notFound('project', selector.project_id);
    const owner = await ensureOwner(trx, deps.newId, caller.tenant_id, { project_id: caller.project_id });
    if (!owner) throw notFound('project', caller.project_id);
    return owner;
  }
  const owner = await ensureOwner(trx, deps.newId, caller.tenant_id, selector);
  if (!owner)
    throw selector.project_id !== undefined
      ? notFound('project', selector.project_id)
      : notFound('workspace', selector.workspace_id ?? '');
  return owner;
}

export function labelsOf(by: {
  external_workspace_id?: string | null | undefined;
  external_user_id?: string | null | undefined;
  external_project_id?: string | null | undefined;
}) {
  return {
    external_workspace_id: by.external_workspace_id ?? null,
    external_user_id: by.external_user_id ?? null,
    external_project_id: by.external_project_id ?? null,
  };
}
