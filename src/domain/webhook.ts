/** A tenant's wish to be told of events by HTTP. Deliveries of one webhook are made one after the other, in order. */
export interface Webhook {
  id: string;
  tenant_id: string;
  /** Set: events of this project only (made by a key of one project). */
  project_id: string | null;
  name: string | null;
  url: string;
  /** Globs like `deployment.*`; empty means everything. */
  events: string[];
  secret_preview: string;
  /** Further attempts after the first one failed. */
  retry_count: number;
  metadata: Record<string, unknown>;
  is_active: boolean;
  /** Events of the tenant's stream up to this one have their delivery rows. */
  after_seq: number;
  created_at: Date;
  updated_at: Date;
}

export type DeliveryState = 'pending' | 'delivered' | 'failed';

export interface Delivery {
  id: string;
  tenant_id: string;
  webhook_id: string;
  /** What receivers recognise a repetition by. */
  event_id: string;
  event_type: string;
  /** The exact bytes that are signed and sent. */
  body: string;
  state: DeliveryState;
  attempts: number;
  next_attempt_at: Date;
  response_status: number | null;
  response_excerpt: string | null;
  error_message: string | null;
  duration_ms: number | null;
  replay_of: string | null;
  created_at: Date;
  finished_at: Date | null;
}

export const WEBHOOK_RETRIES = { default: 3, max: 10 };

/** Waits between attempts: seconds at first, for a receiver that restarts; then up to hours, for one that is away. */
const BACKOFF_MS = [1000, 5000, 30_000, 120_000, 600_000, 1_800_000, 3_600_000];

/** How long to wait after the `attempts`th attempt failed; null when it was the last one. */
export function retryDelayMs(attempts: number, retry_count: number): number | null {
  if (attempts > retry_count) return null;
  return BACKOFF_MS[Math.min(attempts, BACKOFF_MS.length) - 1]!;
}

const GLOB = /^[\w.*-]{1,100}$/;

/** Event types and globs (`deployment.*`) as one expression; null for everything. Undefined: one is malformed. */
export function eventPattern(globs: readonly string[]): RegExp | null | undefined {
  if (globs.length === 0) return null;
  if (globs.some((glob) => !GLOB.test(glob))) return undefined;
  const parts = globs.map((glob) => glob.replace(/[.-]/g, '\\$&').replace(/\*+/g, '.*'));
  return new RegExp(`^(?:${parts.join('|')})$`);
}
