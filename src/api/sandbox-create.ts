/** Making a sandbox: empty, or filled from a snapshot or from another sandbox. */
import { KilnError } from '../domain/errors.ts';
import type { Sandbox } from '../domain/sandbox.ts';
import { slugify } from '../domain/slug.ts';
import type { WorkspaceSource } from '../engine/engine.ts';
import type { Trx } from '../store/db.ts';
import { appendEvent } from '../store/event.ts';
import { recordSubject } from '../store/idempotency.ts';
import { countSandboxes, insertSandbox, sandboxByName } from '../store/sandbox.ts';
import { lockNames } from '../store/tenant.ts';
import { transact } from '../store/transact.ts';
import { type AnyCall, type Reply, reply } from './call.ts';
import type * as contract from './contract/sandbox.ts';
import { SIZE_NAMES, SIZES, type SizeName, TEMPLATE } from './contract/size.ts';
import { checkEnv } from './env-input.ts';
import { invalidFields } from './errors.ts';
import { findSandbox, findSnapshot } from './find.ts';
import { labelsOf, ownerFor } from './owner.ts';
import { sealSandboxEnv } from './sandbox-env.ts';
import { presentSandbox } from './sandbox-view.ts';

/** A workspace is a folder of this machine: whatever needs more is refused by name. */
function refuseUnsupported(body: contract.CreateSandbox): void {
  const empty = (value: unknown) =>
    value === undefined || value === null || value === false || (Array.isArray(value) && value.length === 0);
  const refused: [keyof contract.CreateSandbox, string][] = [
    ['database', 'databases; run one elsewhere and pass its URL as a variable'],
    ['github_repo_url', 'cloning; upload the files with PUT /sandboxes/{id}/archive, or clone in an exec'],
    ['source', 'cloning; upload the files with PUT /sandboxes/{id}/archive, or clone in an exec'],
    ['services', 'services inside a sandbox'],
    ['agent_runtime_profile_id', 'agent runtime profiles'],
  ];
  for (const [field, what] of refused)
    if (!empty(body[field]))
      throw new KilnError('UNSUPPORTED', `\`${field}\`: this engine has no ${what}.`, { details: { field } });
  refuseTemplate(body.template_id);
}

export function refuseTemplate(given: string | null | undefined): void {
  const template = given ?? TEMPLATE;
  if (template !== TEMPLATE)
    throw new KilnError(
      'UNSUPPORTED',
      `There is no template ${JSON.stringify(template)} here; leave it out (or send \`${TEMPLATE}\`) and upload the files.`,
      { details: { field: 'template_id' } },
    );
}

function sizeOf(body: contract.CreateSandbox): SizeName {
  if (body.size) return body.size;
  const disk = body.disk_size_mb ?? body.disk_mb;
  if (body.cpu_count == null && body.memory_mb == null && disk == null) return 'small';
  const match = SIZE_NAMES.find(
    (name) =>
      (body.cpu_count ?? SIZES[name].vcpus) === SIZES[name].vcpus &&
      (body.memory_mb ?? SIZES[name].memory_mb) === SIZES[name].memory_mb &&
      (disk ?? SIZES[name].disk_size_mb) === SIZES[name].disk_size_mb,
  );
  if (match) return match;
  throw invalidFields({
    size: [`cpu_count, memory_mb and disk_size_mb must be those of ${SIZE_NAMES.join(', ')}`],
  });
}

export async function createSandbox(call: AnyCall, body: contract.CreateSandbox): Promise<Reply> {
  const { deps, caller } = call;
  refuseUnsupported(body);
  const size = sizeOf(body);
  const env = checkEnv(body.env ?? {}, 'env');
  const { snapshot_id } = body;
  if (snapshot_id != null && typeof snapshot_id !== 'string')
    throw invalidFields({ snapshot_id: ['must be the id of a snapshot'] });
  const snapshot = snapshot_id ? await findSnapshot(call, null, snapshot_id) : null;
  return makeSandbox(call, snapshot && { stored: snapshot }, async (trx, id) => {
    const { workspace, project } = await ownerFor(trx, call, body);
    const name = body.name ?? `sandbox-${id.slice(-8)}`;
    if (await sandboxByName(trx, caller.tenant_id, name))
      throw new KilnError(
        'CONFLICT',
        `A sandbox is named ${JSON.stringify(name)} already; use it or take another name.`,
      );
    return {
      tenant_id: caller.tenant_id,
      workspace_id: workspace.id,
      project_id: project.id,
      ...labelsOf(body),
      name,
      slug: body.slug ?? slugify(name, 'sandbox'),
      template_id: TEMPLATE,
      size,
      tags: body.tags ?? [],
      metadata: body.metadata ?? {},
      timeout_sec: body.timeout_sec ?? null,
      idle_timeout_sec: body.idle_timeout_sec ?? null,
      always_on: body.always_on ?? false,
      persistent: body.persistent ?? true,
      env_encrypted: Object.keys(env).length === 0 ? null : sealSandboxEnv(deps.vault, id, env),
    };
  });
}

export type NewRow = Omit<Sandbox, 'id' | 'state' | 'created_at' | 'updated_at' | 'destroyed_at'> & {
  env_encrypted: string | null;
};

/**
 * Filled first, written second: nobody ever sees a sandbox that is half there. `describe` runs in the transaction,
 * while no other sandbox of the tenant can take a name.
 */
export async function makeSandbox(
  call: AnyCall,
  from: WorkspaceSource | null,
  describe: (trx: Trx, id: string) => Promise<NewRow>,
): Promise<Reply> {
  const { deps, idempotency } = call;
  const made = idempotency?.previous?.sandbox_id;
  if (typeof made === 'string') return reply(presentSandbox(await findSandbox(call, made)), 201);
  const id = deps.newId('sbx');
  if (from !== null) await deps.engine.fillSandbox(id, from);
  try {
    const sandbox = await transact(deps.database.db, (trx) => insert(trx, call, id, describe));
    await deps.engine.workspaceDir(sandbox);
    return reply(presentSandbox(sandbox), 201);
  } catch (error) {
    if (from !== null) await deps.engine.discardSandbox(id);
    throw error;
  }
}

async function insert(
  trx: Trx,
  call: AnyCall,
  id: string,
  describe: (trx: Trx, id: string) => Promise<NewRow>,
): Promise<Sandbox> {
  const { deps, caller, idempotency } = call;
  const { tenant_id } = caller;
  await lockNames(trx, `sandboxes:${tenant_id}`);
  if ((await countSandboxes(trx, tenant_id)) >= deps.limits.sandboxes)
    throw new KilnError('TOO_MANY', `There are ${deps.limits.sandboxes} sandboxes; destroy some first.`);
  const row = await insertSandbox(trx, { ...(await describe(trx, id)), id, state: 'running' });
  await appendEvent(trx, {
    id: deps.newId('evt'),
    tenant_id,
    type: 'sandbox.created',
    data: { sandbox_id: id, name: row.name, project_id: row.project_id, ...labelsOf(row) },
  });
  if (idempotency) await recordSubject(trx, idempotency.scope, { sandbox_id: id });
  return row;
}
