/** Sandboxes: made, listed, changed, paused, destroyed; their variables. Files and commands have their own modules. */

import { KilnError } from '../domain/errors.ts';
import type { Sandbox } from '../domain/sandbox.ts';
import {
  listSandboxes,
  type SandboxChange,
  sandboxByName,
  setSandboxState,
  updateSandbox,
} from '../store/sandbox.ts';
import { lockNames } from '../store/tenant.ts';
import { transact } from '../store/transact.ts';
import { type AnyCall, handle, type Mounted, type Reply, reply } from './call.ts';
import * as contract from './contract/sandbox.ts';
import { SIZE_NAMES, SIZES, type SizeName, TEMPLATE } from './contract/size.ts';
import { findSandbox, inProject, notFound, pageOf } from './find.ts';
import { createSandbox } from './sandbox-create.ts';
import { presentSandbox, shape } from './sandbox-view.ts';
import { eventStream } from './sse.ts';

async function change(call: AnyCall, id: string, wanted: SandboxChange): Promise<Reply> {
  const { deps, caller } = call;
  const sandbox = await findSandbox(call, id);
  refuseDestroyed(sandbox);
  const row = await transact(deps.database.db, async (trx) => {
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

async function moveTo(call: AnyCall, id: string, to: 'running' | 'paused'): Promise<Reply> {
  const sandbox = await findSandbox(call, id);
  refuseDestroyed(sandbox);
  if (sandbox.state === to) return reply(presentSandbox(sandbox));
  const { engine, database } = call.deps;
  const row =
    to === 'paused'
      ? await engine.pauseSandbox(sandbox)
      : await transact(database.db, (trx) => setSandboxState(trx, sandbox, to));
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

const TEMPLATES = [
  { id: TEMPLATE, name: 'Empty workspace', description: 'The tools of this machine; no files.' },
];

export const sandboxHandlers: Mounted[] = [
  handle(contract.createSandbox, (call) => createSandbox(call, call.body)),
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
    return eventStream(call, (send) => send({ event, data: { type: event, ...readiness(sandbox) } }));
  }),
  handle(contract.getSandboxUsage, (call) => usage(call, call.params.id)),
  handle(contract.listSandboxTemplates, async () =>
    reply({ data: TEMPLATES, default_template_id: TEMPLATE }),
  ),
  handle(contract.listTemplates, async () =>
    reply({
      templates: TEMPLATES,
      shape_contracts: SIZE_NAMES.map(shape),
      default_template_id: TEMPLATE,
    }),
  ),
];
