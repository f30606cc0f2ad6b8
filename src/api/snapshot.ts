/** Snapshots of sandboxes, and sandboxes made from them or from a living one. */
import { KilnError } from '../domain/errors.ts';
import type { Sandbox } from '../domain/sandbox.ts';
import { slugify } from '../domain/slug.ts';
import type { SandboxSnapshot } from '../domain/snapshot.ts';
import type { Trx } from '../store/db.ts';
import { appendEvent } from '../store/event.ts';
import { recordSubject } from '../store/idempotency.ts';
import { sandboxByName } from '../store/sandbox.ts';
import {
  countSnapshots,
  deleteSnapshot,
  insertSnapshot,
  listSnapshots,
  touchSnapshot,
} from '../store/snapshot.ts';
import { freeSlug } from '../store/tenant.ts';
import { transact } from '../store/transact.ts';
import { type AnyCall, data, handle, type Mounted, type Reply, reply } from './call.ts';
import * as contract from './contract/snapshot.ts';
import { invalidFields } from './errors.ts';
import { findSandbox, findSnapshot, iso, pageOf, usable } from './find.ts';
import { labelsOf } from './owner.ts';
import { makeSandbox, refuseTemplate } from './sandbox-create.ts';
import { openSandboxEnv, sealSandboxEnv } from './sandbox-env.ts';

function present(s: SandboxSnapshot): contract.SnapshotView {
  return {
    id: s.id,
    sandbox_id: s.sandbox_id,
    status: 'ready',
    comment: s.comment,
    keep: s.keep,
    retention_seconds: s.retention_seconds,
    last_used_at: iso(s.last_used_at),
    expires_at: iso(s.expires_at),
    sha256: s.sha256,
    size_bytes: s.size_bytes,
    files: s.files,
    secrets_left_out: s.secrets_left_out,
    tenant_id: s.tenant_id,
    workspace_id: s.workspace_id,
    project_id: s.project_id,
    ...labelsOf(s),
    created_at: iso(s.created_at),
    updated_at: iso(s.updated_at),
  };
}

const UNITS: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86_400 };

/** Seconds that the caller gives it; null for ever. A sandbox's own default comes from its metadata. */
function lifetime(body: contract.CreateSnapshot, sandbox: Sandbox): number | null {
  if (body.keep) return null;
  const said = body.retention_seconds ?? body.expiration_seconds;
  if (said != null) return said;
  if (body.expiration_days != null) return body.expiration_days * 86_400;
  if (typeof body.expiration === 'number') return body.expiration;
  if (typeof body.expiration === 'string') {
    const [, count, unit] = /^(\d{1,9})([smhd]?)$/.exec(body.expiration.trim()) ?? [];
    if (count === undefined || Number(count) < 1)
      throw invalidFields({ expiration: ['must be seconds, or a number with s, m, h or d'] });
    return Number(count) * (UNITS[unit || 's'] ?? 1);
  }
  const usual = sandbox.metadata.snapshot_expiration_sec;
  return typeof usual === 'number' && usual >= 1 ? Math.floor(usual) : null;
}

async function create(
  call: AnyCall,
  sandbox_id: string,
  body: contract.CreateSnapshot,
): Promise<SandboxSnapshot> {
  const { deps, caller, idempotency } = call;
  const made = idempotency?.previous?.snapshot_id;
  if (typeof made === 'string') return findSnapshot(call, sandbox_id, made);
  const sandbox = await usable(call, sandbox_id);
  const retention_seconds = lifetime(body, sandbox);
  const limit = deps.limits.sandbox_snapshots;
  if ((await countSnapshots(deps.database.db, caller.tenant_id)) >= limit)
    throw new KilnError('TOO_MANY', `There are ${limit} snapshots of sandboxes; delete some first.`);
  const stored = await deps.engine.snapshotSandbox(sandbox);
  return transact(deps.database.db, async (trx) => {
    const { tenant_id, workspace_id, project_id } = sandbox;
    const row = await insertSnapshot(trx, {
      id: deps.newId('snp'),
      tenant_id,
      workspace_id,
      project_id,
      ...labelsOf(sandbox),
      sandbox_id: sandbox.id,
      comment: body.comment ?? null,
      keep: body.keep ?? false,
      retention_seconds,
      expires_at:
        retention_seconds === null ? null : new Date(deps.now().getTime() + retention_seconds * 1000),
      ...stored,
    });
    await tell(trx, call, row, 'sandbox.snapshot_created');
    if (idempotency) await recordSubject(trx, idempotency.scope, { snapshot_id: row.id });
    return row;
  });
}

async function tell(
  trx: Trx,
  call: AnyCall,
  row: SandboxSnapshot,
  type: 'sandbox.snapshot_created' | 'sandbox.snapshot_deleted',
): Promise<void> {
  const { id: snapshot_id, sandbox_id, project_id, tenant_id } = row;
  const told = { snapshot_id, sandbox_id, project_id, ...labelsOf(row) };
  await appendEvent(trx, { id: call.deps.newId('evt'), tenant_id, type, data: told });
}

async function remove(call: AnyCall, sandbox_id: string, id: string): Promise<Reply> {
  const row = await findSnapshot(call, sandbox_id, id);
  await transact(call.deps.database.db, async (trx) => {
    await deleteSnapshot(trx, row.id);
    await tell(trx, call, row, 'sandbox.snapshot_deleted');
  });
  return reply({ id, deleted: true });
}

interface Copy {
  name?: string | null;
  metadata?: Record<string, unknown> | null;
  external_user_id?: string | null;
  timeout_sec?: number | null;
}

/** Like the original in everything the caller does not say otherwise, its variables included. */
async function copy(
  call: AnyCall,
  of: Sandbox,
  snapshot: SandboxSnapshot | null,
  body: Copy,
): Promise<Reply> {
  const { vault, database } = call.deps;
  const env = await openSandboxEnv(call.deps, of.id);
  const answer = await makeSandbox(call, snapshot ? { stored: snapshot } : { live: of }, async (trx, id) => {
    // Clients name forks after the snapshot, and ids of one second begin alike: a taken name gets a number.
    const name = await freeSlug(
      body.name ?? `${of.name}-copy`,
      async (wanted) => (await sandboxByName(trx, of.tenant_id, wanted)) !== undefined,
    );
    const { tenant_id, workspace_id, project_id, template_id, size, tags } = of;
    const { idle_timeout_sec, always_on, persistent } = of;
    const labels = labelsOf(of);
    return {
      tenant_id,
      workspace_id,
      project_id,
      ...labels,
      external_user_id: body.external_user_id ?? labels.external_user_id,
      name,
      slug: slugify(name, 'sandbox'),
      template_id,
      size,
      tags,
      metadata: body.metadata ?? of.metadata,
      timeout_sec: body.timeout_sec ?? of.timeout_sec,
      idle_timeout_sec,
      always_on,
      persistent,
      env_encrypted: Object.keys(env).length === 0 ? null : sealSandboxEnv(vault, id, env),
    };
  });
  if (snapshot) await touchSnapshot(database.db, snapshot.id);
  return answer;
}

export const snapshotHandlers: Mounted[] = [
  handle(contract.createSnapshot, async (call) =>
    data(present(await create(call, call.params.id, call.body)), 201),
  ),
  handle(contract.createSnapshotAlias, async (call) => {
    const { id } = await create(call, call.params.id, call.body);
    return reply({ snapshot_id: id, id, status: 'ready' }, 201);
  }),
  handle(contract.listSnapshots, async (call) => {
    const { id, tenant_id } = await findSandbox(call, call.params.id);
    const page = await listSnapshots(call.deps.database.db, tenant_id, id, pageOf(call.query));
    return reply({ data: page.data.map(present), next_cursor: page.next_cursor });
  }),
  handle(contract.getSnapshot, async (call) => {
    const { id } = await findSandbox(call, call.params.id);
    return data(present(await findSnapshot(call, id, call.params.snapshot_id)));
  }),
  handle(contract.deleteSnapshot, async (call) => {
    const { id } = await findSandbox(call, call.params.id);
    return remove(call, id, call.params.snapshot_id);
  }),
  handle(contract.restoreSnapshot, async (call) => {
    const sandbox = await findSandbox(call, call.params.id);
    return copy(call, sandbox, await findSnapshot(call, sandbox.id, call.params.snapshot_id), call.body);
  }),
  handle(contract.forkSandbox, async (call) => {
    refuseTemplate(call.body.template_id);
    const { snapshot_id } = call.body;
    if (!snapshot_id) return copy(call, await usable(call, call.params.id), null, call.body);
    const sandbox = await findSandbox(call, call.params.id);
    return copy(call, sandbox, await findSnapshot(call, sandbox.id, snapshot_id), call.body);
  }),
];
