/** What a handler is given and what it gives back. */
import type { ApiKey, Scope } from '../domain/tenant.ts';
import type { Engine } from '../engine/engine.ts';
import type { Database } from '../store/db.ts';
import type { KeyScope } from '../store/idempotency.ts';
import type { NewId } from '../store/tenant.ts';
import type { Vault } from '../store/vault.ts';
import type { Route } from './contract/route.ts';
import type { Resolver } from './dns.ts';
import type { EventHub } from './event-hub.ts';
import type { Places } from './places.ts';

export interface ApiDeps {
  engine: Engine;
  database: Database;
  vault: Vault;
  newId: NewId;
  now: () => Date;
  limits: {
    /** JSON bodies. */
    body_bytes: number;
    /** One file (decoded), and everything else that may be as large. */
    file_bytes: number;
    /** Compressed size of an uploaded archive. */
    archive_bytes: number;
    /** Files and folders in it. */
    archive_files: number;
    sandboxes: number;
    sandbox_snapshots: number;
    deployments: number;
    queued_operations: number;
  };
  log: (level: 'info' | 'warn' | 'error', message: string, data?: Record<string, unknown>) => void;
  idempotency_retention_ms: number;
  base_domain: string;
  resolver: Resolver;
  allow_private_webhooks: boolean;
  /** Check every answer against its schema and answer 500 when it does not fit. */
  strict_answers: boolean;
}

export interface Caller {
  key: ApiKey;
  tenant_id: string;
  /** The key reaches this project only. */
  project_id: string | null;
  may(scope: Scope): boolean;
}

/** The request's Idempotency-Key, and what an attempt that died before its answer had made. */
export interface Idempotency {
  scope: KeyScope;
  previous: Record<string, unknown> | null;
}

export interface Call<P, Q, B> {
  params: P;
  query: Q;
  body: B;
  caller: Caller;
  request: Request;
  request_id: string;
  /** Where the connection comes from; null when there is none (a call inside the process). */
  remote_address: string | null;
  /** Aborted when the caller hangs up. */
  signal: AbortSignal;
  idempotency: Idempotency | null;
  deps: ApiDeps;
  events: EventHub;
  places: Places;
}

/** Any call; what shared look-ups take. */
export type AnyCall = Call<unknown, unknown, unknown>;

export interface Reply {
  status: number;
  body: unknown;
  headers?: Record<string, string>;
}

export const reply = (body: unknown, status = 200): Reply => ({ status, body });
export const data = (body: unknown, status = 200): Reply => ({ status, body: { data: body } });

export type Handler<P, Q, B> = (call: Call<P, Q, B>) => Promise<Reply | Response>;

export interface Mounted {
  route: Route;
  handler: Handler<unknown, unknown, unknown>;
  /**
   * For calls whose stored answer may have been overtaken (promote): is what it promised still so, or on its way? If
   * not, the repeated request is executed again instead of being answered from the store.
   */
  still_true?: (call: AnyCall, subject: Record<string, unknown> | null) => Promise<boolean>;
}

/** Ties a handler to its route; the compiler holds it to the route's types. */
export function handle<P, Q, B>(
  route: Route<P, Q, B>,
  handler: Handler<P, Q, B>,
  more: {
    still_true?: (call: Call<P, Q, B>, subject: Record<string, unknown> | null) => Promise<boolean>;
  } = {},
): Mounted {
  return { route, handler, ...more } as unknown as Mounted;
}
