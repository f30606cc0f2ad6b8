/** Sandboxes: made, listed, changed, paused, destroyed; their variables. Files and commands have their own modules. */

import { KilnError } from '../domain/errors.ts';
import type { Sandbox, SandboxState } from '../domain/sandbox.ts';
import { slugify } from '../domain/slug.ts';
import { appendEvent } from '../store/event.ts';
import { recordSubject } from '../store/idempotency.ts';
import {
  countSandboxes,
  insertSandbox,
  listSandboxes,
  type SandboxChange,
  sandboxByName,
  setSandboxState,
  updateSandbox,
} from '../store/sandbox.ts';
import { lockNames } from '../store/tenant.ts';
import { type AnyCall, handle, type Mounted, type Reply, reply } from './call.ts';
import * as contract from './contract/sandbox.ts';
import { SIZE_NAMES, SIZES, type SizeName, TEMPLATE } from './contract/size.ts';
import { checkEnv } from './env-input.ts';
import { invalidFields } from './errors.ts';
import { findSandbox, inProject, iso, notFound, pageOf } from './find.ts';
import { labelsOf, ownerFor } from './owner.ts';
import { sealSandboxEnv } from './sandbox-env.ts';
import { eventStream } from './sse.ts';

export function presentSandbox(s: Sandbox): contract.SandboxView {
  const size = SIZES[s.size as SizeName] ?? SIZES.small;
  return {
    id: s.id,
    name: s.name,
    slug: s.slug,
    state: s.state,
    status: s.state,
    ready: s.state === 'running',
    template_id: s.template_id,
    image_id: null,
    size: s.size,
    resource_contract: shape(s.size as SizeName),
    cpu_count: size.vcpus,
    memory_mb: size.memory_mb,
    disk_mb: size.disk_size_mb,
    disk_size_mb: size.disk_size_mb,
    tenant_id: s.tenant_id,
    owner_id: null,
    workspace_id: s.workspace_id,
    project_id: s.project_id,
    external_workspace_id: s.external_workspace_id,
    external_user_id: s.external_user_id,
    external_project_id: s.external_project_id,
    tags: s.tags,
    timeout_sec: s.timeout_sec,
    timeout_remaining_ms: null,
    idle_timeout_sec: s.idle_timeout_sec,
    always_on: s.always_on,
    persistent: s.persistent,
    preview_url: null,
    metadata: s.metadata,
    created_at: iso(s.created_at),
    updated_at: iso(s.updated_at),
    started_at: iso(s.created_at),
    ready_at: iso(s.created_at),
    destroyed_at: iso(s.destroyed_at),
  };
}

function shape(name: SizeName) {
  const known = SIZES[name] ? name : 'small';
  const { vcpus, memory_mb, disk_size_mb } = SIZES[known];
  return {
    id: `sandbox/${known}@v1`,
    version: 'v1',
    product: 'sandbox',
    size: known,
    vcpus,
    memory_mb,
    disk_size_mb,
  };
}

/** A workspace is a folder of this machine: whatever needs more is refused by name. */
function refuseUnsupported(body: contract.CreateSandbox): void {
  const empty = (value: unknown) =>
    value === undefined || value === null || value === false || (Array.isArray(value) && value.length === 0);
  const refused: [keyof contract.CreateSandbox, string][] = [
    ['database', 'databases; run one elsewhere and pass its URL as a variable'],
    ['github_repo_url', 'cloning; upload the files with PUT /sandboxes/{id}/archive, or clone in an exec'],
    ['source', 'cloning; upload the files with PUT /sandboxes/{id}/archive, or clone in an exec'],
    ['snapshot_id', 'sandbox snapshots; upload the files instead'],
    ['services', 'services inside a sandbox'],
    ['agent_runtime_profile_id', 'agent runtime profiles'],
  ];
  for (const [field, what] of refused)
    if (!empty(body[field]))
      throw new KilnError('UNSUPPORTED', `\`${field}\`: this engine has no ${what}.`, { details: { field } });
  const template = body.template_id ?? TEMPLATE;
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

async function create(call: AnyCall, body: contract.CreateSandbox): Promise<Reply> {
  const { deps, caller, idempotency } = call;
  const made = idempotency?.previous?.sandbox_id;
  if (typeof made === 'string') return reply(presentSandbox(await findSandbox(call, made)), 201);
  refuseUnsupported(body);
  const size = sizeOf(body);
  const env = checkEnv(body.env ?? {}, 'env');
  const sandbox = await deps.database.db.transaction().execute(async (trx) => {
    await lockNames(trx, `sandboxes:${caller.tenant_id}`);
    const { workspace, project } = await ownerFor(trx, call, body);
    if ((await countSandboxes(trx, caller.tenant_id)) >= deps.limits.sandboxes)
      throw new KilnError('TOO_MANY', `There are ${deps.limits.sandboxes} sandboxes; destroy some first.`);
    const id = deps.newId('sbx');
    const name = body.name ?? `sandbox-${id.slice(-8)}`;
    if (await sandboxByName(trx, caller.tenant_id, name))
      throw new KilnError(
        'CONFLICT',
        `A sandbox is named ${JSON.stringify(name)} already; use it or take another name.`,
      );
    const row = await insertSandbox(trx, {
      id,
      tenant_id: caller.tenant_id,
      workspace_id: workspace.id,
      project_id: project.id,
      ...labelsOf(body),
      name,
      slug: body.slug ?? slugify(name, 'sandbox'),
      state: 'running',
      template_id: TEMPLATE,
      size,
      tags: body.tags ?? [],
      metadata: body.metadata ?? {},
      timeout_sec: body.timeout_sec ?? null,
      idle_timeout_sec: body.idle_timeout_sec ?? null,
      always_on: body.always_on ?? false,
      persistent: body.persistent ?? true,
      env_encrypted: Object.keys(env).length === 0 ? null : sealSandboxEnv(deps.vault, id, env),
    });
    await appendEvent(trx, {
      id: deps.newId('evt'),
      tenant_id: caller.tenant_id,
      type: 'sandbox.created',
      data: { sandbox_id: id, name, project_id: project.id, ...labelsOf(body) },
    });
    if (idempotency) await recordSubject(trx, idempotency.scope, { sandbox_id: id });
    return row;
  });
  await deps.engine.workspaceDir(sandbox);
  return reply(presentSandbox(sandbox), 201);
}

async function change(call: AnyCall, id: string, wanted: SandboxChange): Promise<Reply> {
  const { deps, caller } = call;
  const sandbox = await findSandbox(call, id);
  refuseDestroyed(sandbox);
  const row = await deps.database.db.transaction().execute(async (trx) => {
    if (wanted.name !== undefined && wanted.name !== sandbox.name) {
      await lockNames(trx, `sandboxes:${caller.tenant_id}`);
      if (await sandboxByName(trx, caller.tenant_id, wanted.name))
        throw new KilnError('CONFLICT', `A sandbox is named ${JSON.stringify(wanted.name)} already.`);
    }
    return updateSandbox(trx, id, wanted);
  });
  return reply(presentSandbox(row));
}

/** What was sent and is not null. */
function given<T extends object>(fields: T): { [K in keyof T]?: NonNullable<T[K]> } {
  return Object.fromEntries(
    Object.entries(fields).filter(([, value]) => value !== undefined && value !== null),
  ) as { [K in keyof T]?: NonNullable<T[K]> };
}

function refuseDestroyed(sandbox: Sandbox): void {
  if (sandbox.state === 'destroyed')
    throw new KilnError('SANDBOX_NOT_RUNNING', `The sandbox ${sandbox.id} was destroyed; make a new one.`);
}

async function moveTo(call: AnyCall, id: string, to: SandboxState): Promise<Reply> {
  const sandbox = await findSandbox(call, id);
  refuseDestroyed(sandbox);
  if (sandbox.state === to) return reply(presentSandbox(sandbox));
  const row = await call.deps.database.db.transaction().execute((trx) => setSandboxState(trx, sandbox, to));
  return reply(presentSandbox(row));
}

async function destroy(call: AnyCall, id: string): Promise<Reply> {
  const sandbox = await findSandbox(call, id);
  if (sandbox.state !== 'destroyed') await call.deps.engine.destroySandbox(sandbox);
  return reply({ id, deleted: true });
}

async function usage(call: AnyCall, id: string): Promise<Reply> {
  const s = await findSandbox(call, id);
  const until = s.destroyed_at ?? call.deps.now();
  const runtime_ms = Math.max(0, until.getTime() - s.created_at.getTime());
  const size = SIZES[s.size as SizeName] ?? SIZES.small;
  return reply({
    data: {
      sandbox_id: s.id,
      state: s.state,
      runtime_sec: Math.round(runtime_ms / 1000),
      provisioned_vcpu_ms: runtime_ms * size.vcpus,
      provisioned_memory_mb_ms: runtime_ms * size.memory_mb,
      creation_count: 1,
      active_cpu_ms: null,
      network_ingress_bytes: null,
      network_egress_bytes: null,
      measurement_status: {
        active_cpu: 'unavailable',
        network: 'unavailable',
        provisioned_resources: 'measured',
      },
      estimated_cost_cents: 0,
      timeout_sec: s.timeout_sec,
      timeout_remaining_ms: null,
    },
  });
}

const readiness = (s: Sandbox) => ({
  ready: s.state === 'running',
  status: s.state === 'running' ? 'ready' : s.state,
  state: s.state,
});

export const sandboxHandlers: Mounted[] = [
  handle(contract.createSandbox, (call) => create(call, call.body)),
  handle(contract.listSandboxes, async (call) => {
    const { tags, limit: _l, cursor: _c, page: _p, page_size: _s, ...filter } = call.query;
    const { data, next_cursor } = await listSandboxes(
      call.deps.database.db,
      call.caller.tenant_id,
      {
        ...filter,
        ...(tags
          ? {
              tags: tags
                .split(',')
                .map((tag) => tag.trim())
                .filter(Boolean),
            }
          : {}),
        ...(call.caller.project_id === null ? {} : { project_id: call.caller.project_id }),
      },
      pageOf(call.query),
    );
    return reply({ data: data.map(presentSandbox), next_cursor });
  }),
  handle(contract.getSandboxByName, async (call) => {
    const row = await sandboxByName(call.deps.database.db, call.caller.tenant_id, call.params.name);
    if (!row || !inProject(call, row)) throw notFound('sandbox', call.params.name);
    return reply(presentSandbox(row));
  }),
  handle(contract.getSandbox, async (call) => reply(presentSandbox(await findSandbox(call, call.params.id)))),
  handle(contract.updateSandbox, (call) => change(call, call.params.id, given(call.body))),
  handle(contract.setSandboxTags, (call) => change(call, call.params.id, { tags: call.body.tags })),
  handle(contract.deleteSandbox, (call) => destroy(call, call.params.id)),
  handle(contract.pauseSandbox, (call) => moveTo(call, call.params.id, 'paused')),
  handle(contract.stopSandbox, (call) => moveTo(call, call.params.id, 'paused')),
  handle(contract.resumeSandbox, (call) => moveTo(call, call.params.id, 'running')),
  handle(contract.extendSandbox, (call) => change(call, call.params.id, given(call.body))),
  handle(contract.getReadiness, async (call) => reply(readiness(await findSandbox(call, call.params.id)))),
  handle(contract.streamReadiness, async (call) => {
    const sandbox = await findSandbox(call, call.params.id);
    const event = sandbox.state === 'running' ? 'ready' : 'timeout';
    return eventStream(
      call.request,
      (send) => send({ event, data: { type: event, ...readiness(sandbox) } }),
      String,
    );
  }),
  handle(contract.getSandboxUsage, (call) => usage(call, call.params.id)),
  handle(contract.getSandboxLogs, async (call) => {
    const { id } = await findSandbox(call, call.params.id);
    return reply({ data: { sandbox_id: id, lines: [], logs: '' } });
  }),
  handle(contract.listTemplates, async () =>
    reply({
      templates: [
        { id: TEMPLATE, name: 'Empty workspace', description: 'The tools of this machine; no files.' },
      ],
      shape_contracts: SIZE_NAMES.map(shape),
      default_template_id: TEMPLATE,
    }),
  ),
];
