import { z } from '@hono/zod-openapi';
import { WEBHOOK_RETRIES } from '../../domain/webhook.ts';
import {
  Deleted,
  defineRoute,
  enveloped,
  listOf,
  Metadata,
  MetadataInput,
  NameInput,
  ok,
  opt,
  PageQuery,
  Time,
} from './route.ts';

export const Webhook = z
  .object({
    id: z.string(),
    tenant_id: z.string(),
    project_id: z.string().nullable(),
    name: z.string().nullable(),
    url: z.string(),
    events: z.array(z.string()),
    header_names: z.array(z.string()).openapi({ description: 'The values are kept sealed and never shown.' }),
    retry_count: z.number().int(),
    is_active: z.boolean(),
    secret_preview: z.string(),
    metadata: Metadata,
    created_at: Time,
    updated_at: Time,
  })
  .openapi('Webhook');
export type WebhookView = z.infer<typeof Webhook>;

const DELIVERY_STATES = ['pending', 'delivered', 'failed'] as const;

export const Delivery = z
  .object({
    id: z.string(),
    webhook_id: z.string(),
    event_id: z.string(),
    event_type: z.string(),
    state: z.enum(DELIVERY_STATES),
    attempts: z.number().int(),
    next_attempt_at: Time.nullable(),
    response_status: z.number().int().nullable(),
    response_excerpt: z.string().nullable(),
    error_message: z.string().nullable(),
    duration_ms: z.number().int().nullable(),
    replay_of: z.string().nullable(),
    created_at: Time,
    finished_at: Time.nullable(),
  })
  .openapi('WebhookDelivery');
export type DeliveryView = z.infer<typeof Delivery>;

const HEADER_NAME = /^[A-Za-z0-9-]{1,100}$/;
const HEADER_VALUE = /^[\x20-\x7e]{0,2000}$/;
/** Those that the sender sets itself, or that speak about the connection. */
const OWN_HEADERS = new Set([
  'connection',
  'content-length',
  'content-type',
  'host',
  'keep-alive',
  'miosa-signature',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'expect',
]);

const Headers = z
  .record(z.string(), z.string())
  .refine((all) => Object.keys(all).length <= 20, { message: 'must be at most 20 headers' })
  .refine((all) => Object.keys(all).every((name) => HEADER_NAME.test(name)), {
    message: 'has a name that no header can have',
  })
  .refine((all) => Object.values(all).every((value) => HEADER_VALUE.test(value)), {
    message: 'has a value that no header can have',
  })
  .refine((all) => !Object.keys(all).some((name) => OWN_HEADERS.has(name.toLowerCase())), {
    message: 'has a header that Kiln sets itself',
  });

const fields = {
  name: opt(NameInput),
  events: opt(z.array(z.string().max(100)).max(50)),
  headers: opt(Headers),
  retry_count: opt(z.number().int().min(0).max(WEBHOOK_RETRIES.max)),
  is_active: opt(z.boolean()),
  metadata: opt(MetadataInput),
};
const Url = z.string().max(2000);

const tag = 'Webhooks';
const scope = 'webhooks:write' as const;
const one = ok(enveloped(Webhook));

export const listWebhooks = defineRoute({
  id: 'listWebhooks',
  method: 'get',
  path: '/webhooks',
  tag,
  about: 'Webhooks, newest first.',
  scope,
  query: PageQuery,
  answers: ok(listOf(Webhook)),
});

export const createWebhook = defineRoute({
  id: 'createWebhook',
  method: 'post',
  path: '/webhooks',
  tag,
  about:
    'Every event of the stream from now on, as a POST signed with `Miosa-Signature: t=<unix>,v1=<hex HMAC-SHA256 of t.body>`; in order, at least once. The secret is shown this once.',
  scope,
  body: z.object({ url: Url, ...fields }),
  answers: {
    201: {
      about: 'The webhook, with its secret.',
      schema: enveloped(Webhook.extend({ secret: z.string() }).openapi('NewWebhook')),
    },
  },
});

export const getWebhook = defineRoute({
  id: 'getWebhook',
  method: 'get',
  path: '/webhooks/{webhook_id}',
  tag,
  about: 'One webhook.',
  scope,
  answers: one,
});

export const updateWebhook = defineRoute({
  id: 'updateWebhook',
  method: 'patch',
  path: '/webhooks/{webhook_id}',
  tag,
  about: 'Changes what was sent. One that is switched on again (`is_active`) hears of events from then on.',
  scope,
  body: z.object({ url: opt(Url), ...fields }),
  answers: one,
});

export const deleteWebhook = defineRoute({
  id: 'deleteWebhook',
  method: 'delete',
  path: '/webhooks/{webhook_id}',
  tag,
  about: 'Removes it with its deliveries.',
  scope,
  answers: ok(Deleted),
});

const queued = {
  202: { about: 'Queued; see the delivery.', schema: enveloped(Delivery) },
};

export const testWebhook = defineRoute({
  id: 'testWebhook',
  method: 'post',
  path: '/webhooks/{webhook_id}/test',
  tag,
  about: 'Sends a `webhook.test` event to this webhook only.',
  scope,
  body: z.object({}),
  answers: queued,
});

export const listDeliveries = defineRoute({
  id: 'listWebhookDeliveries',
  method: 'get',
  path: '/webhooks/{webhook_id}/deliveries',
  tag,
  about: 'What was sent and how it was answered, newest first; kept as long as versions are.',
  scope,
  query: PageQuery.extend({ state: z.enum(DELIVERY_STATES).optional() }),
  answers: ok(listOf(Delivery)),
});

export const replayDelivery = defineRoute({
  id: 'replayWebhookDelivery',
  method: 'post',
  path: '/webhooks/{webhook_id}/deliveries/{delivery_id}/replay',
  tag,
  about: 'Sends the same event (same id, same body) once more.',
  scope,
  body: z.object({}),
  answers: queued,
});
