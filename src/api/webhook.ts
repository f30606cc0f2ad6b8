/** Webhooks: where a tenant's events are sent. The sending itself is the engine's. */
import { randomBytes } from 'node:crypto';
import net from 'node:net';
import { KilnError } from '../domain/errors.ts';
import { type Delivery, eventPattern, WEBHOOK_RETRIES, type Webhook } from '../domain/webhook.ts';
import { isPublicAddress } from '../engine/webhook-request.ts';
import { recordSubject } from '../store/idempotency.ts';
import { transact } from '../store/transact.ts';
import {
  countWebhooks,
  deleteWebhook,
  getDelivery,
  getWebhook,
  insertDelivery,
  insertWebhook,
  listDeliveries,
  listWebhooks,
  updateWebhook,
  webhookSecrets,
} from '../store/webhook.ts';
import { type AnyCall, data, handle, type Mounted, type Reply, reply } from './call.ts';
import * as contract from './contract/webhook.ts';
import { invalidFields } from './errors.ts';
import { iso, notFound, pageOf } from './find.ts';

const MAX_WEBHOOKS = 100;

async function find(call: AnyCall, id: string): Promise<Webhook> {
  const row = await getWebhook(call.deps.database.db, call.caller.tenant_id, id);
  const { project_id } = call.caller;
  if (!row || (project_id !== null && row.project_id !== project_id)) throw notFound('webhook', id);
  return row;
}

async function view(call: AnyCall, row: Webhook): Promise<contract.WebhookView> {
  const sealed = await webhookSecrets(call.deps.database.db, row.id);
  const headers = sealed ? call.deps.vault.open(sealed.headers_encrypted, `webhook-headers:${row.id}`) : '{}';
  const { after_seq: _, ...shown } = row;
  return {
    ...shown,
    header_names: Object.keys(JSON.parse(headers)),
    created_at: iso(row.created_at),
    updated_at: iso(row.updated_at),
  };
}

function viewDelivery(row: Delivery): contract.DeliveryView {
  return {
    id: row.id,
    webhook_id: row.webhook_id,
    event_id: row.event_id,
    event_type: row.event_type,
    state: row.state,
    attempts: row.attempts,
    next_attempt_at: row.state === 'pending' ? iso(row.next_attempt_at) : null,
    response_status: row.response_status,
    response_excerpt: row.response_excerpt,
    error_message: row.error_message,
    duration_ms: row.duration_ms,
    replay_of: row.replay_of,
    created_at: iso(row.created_at),
    finished_at: iso(row.finished_at),
  };
}

/** What can be said before the name is resolved; the sender looks again each time. */
function checkUrl(call: AnyCall, text: string): string {
  const wrong = (why: string) => invalidFields({ url: [why] });
  const url = URL.parse(text);
  const { allow_private_webhooks } = call.deps;
  if (!url || !(url.protocol === 'https:' || (allow_private_webhooks && url.protocol === 'http:')))
    throw wrong('must be an https URL');
  if (url.username !== '' || url.password !== '') throw wrong('must not hold a user name or password');
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const is_private = net.isIP(host) === 0 ? /(^|\.)localhost\.?$/i.test(host) : !isPublicAddress(host);
  if (is_private && !allow_private_webhooks)
    throw wrong('must be a public address (the engine option allow-private-webhooks permits others)');
  url.hash = '';
  return url.href;
}

function checkEvents(events: string[]): string[] {
  if (eventPattern(events) === undefined)
    throw invalidFields({ events: ['must be event types or globs like deployment.*'] });
  return events;
}

async function create(call: AnyCall, body: { url: string } & Changes): Promise<Reply> {
  const { deps, caller, idempotency } = call;
  const url = checkUrl(call, body.url);
  const events = checkEvents(body.events ?? []);
  const secret = `whsec_${randomBytes(32).toString('base64url')}`;
  const id = deps.newId('wh');
  const row = await transact(deps.database.db, async (trx) => {
    // An attempt whose answer was lost has made one whose secret nobody has seen.
    const lost = idempotency?.previous?.webhook_id;
    if (typeof lost === 'string') await deleteWebhook(trx, lost);
    if ((await countWebhooks(trx, caller.tenant_id)) >= MAX_WEBHOOKS)
      throw new KilnError('TOO_MANY', `There are ${MAX_WEBHOOKS} webhooks; remove some first.`);
    const made = await insertWebhook(trx, {
      id,
      tenant_id: caller.tenant_id,
      project_id: caller.project_id,
      name: body.name ?? null,
      url,
      events,
      headers_encrypted: deps.vault.seal(JSON.stringify(body.headers ?? {}), `webhook-headers:${id}`),
      secret_encrypted: deps.vault.seal(secret, `webhook-secret:${id}`),
      secret_preview: `${secret.slice(0, 10)}…`,
      retry_count: body.retry_count ?? WEBHOOK_RETRIES.default,
      metadata: body.metadata ?? {},
    });
    if (idempotency) await recordSubject(trx, idempotency.scope, { webhook_id: id });
    return body.is_active === false ? updateWebhook(trx, made, { is_active: false }) : made;
  });
  return data({ ...(await view(call, row)), secret }, 201);
}

interface Changes {
  url?: string | null;
  name?: string | null;
  events?: string[] | null;
  headers?: Record<string, string> | null;
  retry_count?: number | null;
  is_active?: boolean | null;
  metadata?: Record<string, unknown> | null;
}

async function change(call: AnyCall, before: Webhook, body: Changes): Promise<Reply> {
  const { url, events, headers, retry_count, is_active, metadata } = body;
  const sealed = (value: Record<string, string>) =>
    call.deps.vault.seal(JSON.stringify(value), `webhook-headers:${before.id}`);
  const wanted = {
    ...(body.name === undefined ? {} : { name: body.name }),
    ...(url == null ? {} : { url: checkUrl(call, url) }),
    ...(events == null ? {} : { events: checkEvents(events) }),
    ...(headers === undefined ? {} : { headers_encrypted: sealed(headers ?? {}) }),
    ...(retry_count == null ? {} : { retry_count }),
    ...(is_active == null ? {} : { is_active }),
    ...(metadata == null ? {} : { metadata }),
  };
  const row =
    Object.keys(wanted).length === 0
      ? before
      : await transact(call.deps.database.db, (trx) => updateWebhook(trx, before, wanted));
  return data(await view(call, row));
}

/** Outside the tenant's stream, for no other webhook is to hear of it. */
async function sendTest(call: AnyCall, webhook: Webhook): Promise<Reply> {
  const { deps } = call;
  const event_id = deps.newId('evt');
  const body = JSON.stringify({
    id: event_id,
    type: 'webhook.test',
    created_at: deps.now().toISOString(),
    tenant_id: webhook.tenant_id,
    data: { webhook_id: webhook.id },
  });
  return queue(call, webhook, { event_id, event_type: 'webhook.test', body, replay_of: null });
}

async function queue(
  call: AnyCall,
  webhook: Webhook,
  row: Pick<Delivery, 'event_id' | 'event_type' | 'body' | 'replay_of'>,
): Promise<Reply> {
  if (!webhook.is_active)
    throw new KilnError('CONFLICT', 'This webhook is switched off; switch it on with `is_active: true`.');
  const id = call.deps.newId('whd');
  const delivery = await transact(call.deps.database.db, (trx) =>
    insertDelivery(trx, webhook, { ...row, id }),
  );
  return data(viewDelivery(delivery), 202);
}

export const webhookHandlers: Mounted[] = [
  handle(contract.listWebhooks, async (call) => {
    const { tenant_id, project_id } = call.caller;
    const page = await listWebhooks(call.deps.database.db, { tenant_id, project_id }, pageOf(call.query));
    const rows = await Promise.all(page.data.map((row) => view(call, row)));
    return reply({ data: rows, next_cursor: page.next_cursor });
  }),
  handle(contract.createWebhook, (call) => create(call, call.body)),
  handle(contract.getWebhook, async (call) =>
    data(await view(call, await find(call, call.params.webhook_id))),
  ),
  handle(contract.updateWebhook, async (call) =>
    change(call, await find(call, call.params.webhook_id), call.body),
  ),
  handle(contract.deleteWebhook, async (call) => {
    const { id } = await find(call, call.params.webhook_id);
    await deleteWebhook(call.deps.database.db, id);
    return reply({ id, deleted: true });
  }),
  handle(contract.testWebhook, async (call) => sendTest(call, await find(call, call.params.webhook_id))),
  handle(contract.listDeliveries, async (call) => {
    const webhook = await find(call, call.params.webhook_id);
    const of = { webhook_id: webhook.id, state: call.query.state };
    const page = await listDeliveries(call.deps.database.db, of, pageOf(call.query));
    return reply({ data: page.data.map(viewDelivery), next_cursor: page.next_cursor });
  }),
  handle(contract.replayDelivery, async (call) => {
    const webhook = await find(call, call.params.webhook_id);
    const { delivery_id } = call.params;
    const found = await getDelivery(call.deps.database.db, webhook.id, delivery_id);
    if (!found) throw notFound('delivery', delivery_id);
    const { event_id, event_type, body } = found;
    return queue(call, webhook, { event_id, event_type, body, replay_of: found.id });
  }),
];
