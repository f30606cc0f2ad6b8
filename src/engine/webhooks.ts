/**
 * Sends webhooks: reads the tenant's event stream into delivery rows, and the rows out over HTTP, one after the other
 * for each webhook. Rows are the truth; notifications and the timer only say "look". An engine that dies between an
 * answer and its row sends again after the restart: at least once, and receivers know a repetition by the event's id.
 */
import type { Event } from '../domain/event.ts';
import { type Delivery, eventPattern, retryDelayMs, type Webhook } from '../domain/webhook.ts';
import {
  dueDelivery,
  dueWebhookIds,
  fanOut,
  leaseWebhook,
  recordAttempt,
  releaseAllWebhooks,
  releaseWebhook,
  type SealedWebhook,
  webhookSecrets,
} from '../store/webhook.ts';
import type { EngineContext } from './context.ts';
import { type Sending, type Sent, send } from './webhook-request.ts';

const SCAN_MS = 1000;
/** Longer than one attempt can take; renewed before each. */
const LEASE_MS = 30_000;
/** Webhooks served side by side. */
const CONCURRENCY = 8;
/** After a fault of ours. What could not be served is due still, and would be tried again at once, for ever. */
const REST_MS = 10_000;

export class WebhookSender {
  readonly #ctx: EngineContext;
  readonly #busy = new Map<string, Promise<void>>();
  /** When those may be served again that could not be. */
  readonly #resting = new Map<string, number>();
  readonly #ended = new AbortController();
  #timer: NodeJS.Timeout | null = null;
  #unlisten: (() => Promise<void>) | null = null;
  #looking: Promise<void> | null = null;

  constructor(ctx: EngineContext) {
    this.#ctx = ctx;
  }

  async start(): Promise<void> {
    await releaseAllWebhooks(this.#ctx.db, this.#ctx.id);
    this.#unlisten = await this.#ctx.database.listen('kiln_events', () => this.#look());
    this.#timer = setInterval(() => this.#look(), SCAN_MS);
    this.#look();
  }

  /** An attempt under way is broken off and made again after the next start. */
  async stop(): Promise<void> {
    this.#ended.abort();
    if (this.#timer) clearInterval(this.#timer);
    await this.#unlisten?.().catch(() => {});
    await this.#looking;
    await Promise.all(this.#busy.values());
  }

  #look(): void {
    if (this.#ended.signal.aborted) return;
    this.#looking ??= this.#serveDue()
      .catch((error) => this.#say('webhooks could not be looked at', error))
      .finally(() => {
        this.#looking = null;
      });
  }

  async #serveDue(): Promise<void> {
    for (const id of await dueWebhookIds(this.#ctx.db)) {
      if (this.#busy.has(id) || this.#busy.size >= CONCURRENCY || this.#ended.signal.aborted) continue;
      if ((this.#resting.get(id) ?? 0) > performance.now()) continue;
      this.#resting.delete(id);
      const work = this.#serve(id)
        .catch((error) => {
          this.#resting.set(id, performance.now() + REST_MS);
          this.#say(`webhook ${id} could not be served`, error);
        })
        .finally(() => {
          this.#busy.delete(id);
          this.#look();
        });
      this.#busy.set(id, work);
    }
  }

  /** Until nothing is due. */
  async #serve(id: string): Promise<void> {
    const { db, newId } = this.#ctx;
    try {
      while (!this.#ended.signal.aborted) {
        const webhook = await leaseWebhook(db, id, this.#ctx.id, LEASE_MS);
        if (!webhook) return;
        const pattern = eventPattern(webhook.events) ?? null;
        const wants = (type: string) => pattern?.test(type) ?? true;
        while (await fanOut(db, webhook, { wants, bodyOf, newId: () => newId('whd') }));
        const delivery = await dueDelivery(db, id);
        if (!delivery) return;
        await this.#attempt(webhook, delivery);
      }
    } finally {
      await releaseWebhook(db, id, this.#ctx.id);
    }
  }

  async #attempt(webhook: Webhook, delivery: Delivery): Promise<void> {
    const { db, allow_private_webhooks } = this.#ctx;
    const sealed = await webhookSecrets(db, webhook.id);
    if (!sealed) return;
    const { signal } = this.#ended;
    const to = this.#opened(webhook, sealed);
    const sent: Sent =
      to instanceof Error
        ? { status: null, excerpt: null, error: to.message, duration_ms: 0 }
        : await send({
            ...to,
            url: webhook.url,
            body: delivery.body,
            allow_private: allow_private_webhooks,
            signal,
            now_ms: Date.now(),
          });
    if (signal.aborted && sent.status === null) return;
    const is_taken = sent.status !== null && sent.status >= 200 && sent.status < 300;
    const wait_ms = is_taken ? null : retryDelayMs(delivery.attempts + 1, webhook.retry_count);
    await recordAttempt(db, delivery.id, {
      state: is_taken ? 'delivered' : wait_ms === null ? 'failed' : 'pending',
      wait_ms,
      response_status: sent.status,
      response_excerpt: sent.excerpt,
      error_message: sent.error ?? (is_taken ? null : `the receiver answered ${sent.status}`),
      duration_ms: sent.duration_ms,
    });
  }

  #opened(webhook: Webhook, sealed: SealedWebhook): Pick<Sending, 'headers' | 'secret'> | Error {
    const { vault } = this.#ctx;
    try {
      return {
        headers: JSON.parse(vault.open(sealed.headers_encrypted, `webhook-headers:${webhook.id}`)),
        secret: vault.open(sealed.secret_encrypted, `webhook-secret:${webhook.id}`),
      };
    } catch {
      return new Error(
        'its stored secret cannot be read with the key of this data folder; make the webhook anew',
      );
    }
  }

  #say(message: string, error: unknown): void {
    if (!this.#ended.signal.aborted) this.#ctx.say('warn', message, { error: String(error) });
  }
}

function bodyOf(event: Event): string {
  const { id, type, tenant_id, deployment_id, version_id, operation_id } = event;
  return JSON.stringify({
    id,
    type,
    created_at: event.created_at.toISOString(),
    tenant_id,
    data: { deployment_id, version_id, operation_id, ...event.data },
  });
}
