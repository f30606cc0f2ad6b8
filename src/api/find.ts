/** Looking objects up as the caller may see them: what is another tenant's, or outside the key's project, is not there. */
import type { Deployment } from '../domain/deployment.ts';
import { KilnError } from '../domain/errors.ts';
import type { Operation } from '../domain/operation.ts';
import type { Release } from '../domain/release.ts';
import type { Sandbox } from '../domain/sandbox.ts';
import type { SandboxSnapshot } from '../domain/snapshot.ts';
import type { Version } from '../domain/version.ts';
import { getDeployment } from '../store/deployment.ts';
import { getOperation } from '../store/operation.ts';
import { decodeCursor, type PageRequest } from '../store/page.ts';
import { getRelease } from '../store/release.ts';
import { getSandbox, setSandboxState } from '../store/sandbox.ts';
import { getSnapshot } from '../store/snapshot.ts';
import { transact } from '../store/transact.ts';
import { getVersion } from '../store/version.ts';
import type { AnyCall } from './call.ts';

export function notFound(what: string, id: string): KilnError {
  return new KilnError('NOT_FOUND', `There is no ${what} ${JSON.stringify(id.slice(0, 100))}.`);
}

export function inProject(call: AnyCall, object: { project_id: string }): boolean {
  return call.caller.project_id === null || call.caller.project_id === object.project_id;
}

export async function findDeployment(call: AnyCall, id: string): Promise<Deployment> {
  const row = await getDeployment(call.deps.database.db, call.caller.tenant_id, id);
  if (!row || !inProject(call, row)) throw notFound('deployment', id);
  return row;
}

export async function findSandbox(call: AnyCall, id: string): Promise<Sandbox> {
  const row = await getSandbox(call.deps.database.db, call.caller.tenant_id, id);
  if (!row || !inProject(call, row)) throw notFound('sandbox', id);
  return row;
}

export async function findVersion(call: AnyCall, deployment_id: string | null, id: string): Promise<Version> {
  const row = await getVersion(call.deps.database.db, call.caller.tenant_id, id);
  if (!row || !inProject(call, row) || (deployment_id !== null && row.deployment_id !== deployment_id))
    throw notFound('version', id);
  return row;
}

export async function findRelease(call: AnyCall, deployment_id: string | null, id: string): Promise<Release> {
  const row = await getRelease(call.deps.database.db, call.caller.tenant_id, id);
  if (!row || !inProject(call, row) || (deployment_id !== null && row.deployment_id !== deployment_id))
    throw notFound('release', id);
  return row;
}

/** `sandbox_id` null: of any sandbox. */
export async function findSnapshot(
  call: AnyCall,
  sandbox_id: string | null,
  id: string,
): Promise<SandboxSnapshot> {
  const row = await getSnapshot(call.deps.database.db, call.caller.tenant_id, id);
  if (!row || !inProject(call, row) || (sandbox_id !== null && row.sandbox_id !== sandbox_id))
    throw notFound('snapshot', id);
  return row;
}

/** A sandbox that can be used now; a paused one that is persistent resumes. Errors: SANDBOX_NOT_RUNNING. */
export async function usable(call: AnyCall, id: string): Promise<Sandbox> {
  const sandbox = await findSandbox(call, id);
  if (sandbox.state === 'running') return sandbox;
  if (sandbox.state === 'paused' && sandbox.persistent)
    return transact(call.deps.database.db, (trx) => setSandboxState(trx, sandbox, 'running'));
  throw new KilnError(
    'SANDBOX_NOT_RUNNING',
    `The sandbox ${sandbox.id} is ${sandbox.state}${sandbox.state === 'paused' ? '; resume it first' : '; make a new one'}.`,
  );
}

/** Of a removed deployment as well: its outcome is still true. */
export async function findOperation(call: AnyCall, id: string): Promise<Operation> {
  const row = await getOperation(call.deps.database.db, id);
  if (!row || row.tenant_id !== call.caller.tenant_id) throw notFound('operation', id);
  const version = await getVersion(call.deps.database.db, row.tenant_id, row.version_id);
  if (!version || !inProject(call, version)) throw notFound('operation', id);
  return row;
}

/** `limit` + `cursor`, or `page` + `page_size`. Errors: INVALID_CURSOR. */
export function pageOf(query: {
  limit?: number | undefined;
  cursor?: string | undefined;
  page?: number | undefined;
  page_size?: number | undefined;
}): PageRequest {
  if (query.cursor !== undefined)
    return { limit: query.limit ?? 50, cursor: decodeCursor(query.cursor), offset: 0 };
  const limit = query.limit ?? query.page_size ?? 50;
  return { limit, cursor: null, offset: ((query.page ?? 1) - 1) * (query.page_size ?? limit) };
}

export function iso(date: Date): string;
export function iso(date: Date | null): string | null;
export function iso(date: Date | null): string | null {
  return date === null ? null : date.toISOString();
}
