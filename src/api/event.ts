/** The tenant's events as a stream that resumes without a gap. */
import type { Event } from '../domain/event.ts';
import { eventPattern } from '../domain/webhook.ts';
import { eventSeq, lastEventSeq, nextEvents } from '../store/event.ts';
import { type AnyCall, handle, type Mounted } from './call.ts';
import { streamEvents } from './contract/event.ts';
import { streamSandboxEvents } from './contract/sandbox-stream.ts';
import { invalidFields } from './errors.ts';
import { findSandbox } from './find.ts';
import { eventStream, type Send } from './sse.ts';

const BATCH = 200;
/** Looked at this often even when no notification comes. */
const SCAN_MS = 2000;

interface Wanted {
  types: RegExp | null;
  deployment_id?: string;
  operation_id?: string;
  sandbox_id?: string;
}

/** `deployment.*,sandbox.created` as one expression; null for everything. */
function globs(text: string | undefined): RegExp | null {
  const parts = (text ?? '').split(',').map((part) => part.trim());
  const pattern = eventPattern(parts.filter(Boolean));
  if (pattern === undefined)
    throw invalidFields({ types: ['must be event types or globs like deployment.*, separated by commas'] });
  return pattern;
}

/** Where to go on; an id that is not kept any more means from the oldest event that is. */
async function startAt(call: AnyCall, last_id: string | null, from_start: boolean): Promise<number> {
  const { db } = call.deps.database;
  if (last_id !== null) return (await eventSeq(db, call.caller.tenant_id, last_id)) ?? 0;
  return from_start ? 0 : lastEventSeq(db, call.caller.tenant_id);
}

async function follow(
  call: AnyCall,
  wanted: Wanted,
  after: number,
  send: Send,
  signal: AbortSignal,
): Promise<void> {
  // A key of one project sees that project's deployments and sandboxes only.
  const { tenant_id, project_id } = call.caller;
  const { types, ...filter } = wanted;
  let after_seq = after;
  while (!signal.aborted) {
    const batch = await nextEvents(call.deps.database.db, {
      tenant_id,
      after_seq,
      ...filter,
      ...(project_id === null ? {} : { project_id }),
      limit: BATCH,
    });
    for (const event of batch.events) {
      if (types && !types.test(event.type)) continue;
      await send({ id: event.id, event: event.type, data: envelope(event) });
    }
    after_seq = batch.after_seq;
    if (batch.is_last) await call.events.next(tenant_id, SCAN_MS, signal);
  }
}

function envelope(event: Event) {
  return {
    ...event.data,
    id: event.id,
    type: event.type,
    tenant_id: event.tenant_id,
    seq: event.seq,
    ts: event.created_at.toISOString(),
    deployment_id: event.deployment_id,
    version_id: event.version_id,
    operation_id: event.operation_id,
    data: event.data,
  };
}

export const eventHandlers: Mounted[] = [
  handle(streamEvents, async (call) => {
    const { types, deployment_id, operation_id, from } = call.query;
    const wanted: Wanted = {
      types: globs(types),
      ...(deployment_id === undefined ? {} : { deployment_id }),
      ...(operation_id === undefined ? {} : { operation_id }),
    };
    return stream(call, wanted, call.query.last_event_id, from === 'start');
  }),
  handle(streamSandboxEvents, async (call) => {
    const { id } = await findSandbox(call, call.params.id);
    const { from, last_event_id } = call.query;
    return stream(call, { types: null, sandbox_id: id }, last_event_id, from === 'start');
  }),
];

async function stream(
  call: AnyCall,
  wanted: Wanted,
  last_event_id: string | undefined,
  from_start: boolean,
): Promise<Response> {
  const last_id = call.request.headers.get('last-event-id') ?? last_event_id ?? null;
  const after = await startAt(call, last_id, from_start);
  return eventStream(call, (send, signal) => follow(call, wanted, after, send, signal));
}
