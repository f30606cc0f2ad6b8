/**
 * Bearer keys. A key is 256 random bits, so a plain SHA-256 is enough at rest; it is looked up on every request, so
 * revoking one works at once. What a key may do is its scopes; where, its tenant and perhaps one project.
 */
import { createHash, randomBytes } from 'node:crypto';
import { KilnError } from '../domain/errors.ts';
import type { ApiKey, Scope } from '../domain/tenant.ts';
import { apiKeyByHash, insertApiKey, touchApiKey } from '../store/api-key.ts';
import type { Database, Db } from '../store/db.ts';
import type { NewId } from '../store/tenant.ts';
import type { Caller } from './call.ts';

const PREFIX = 'msk_live_';
/** Shown for recognition. */
const PREFIX_CHARS = 12;
/** `last_used_at` is written at most this often per key. */
const TOUCH_MS = 60_000;

/** A new key: the plain text to show once, what to store, and its first characters for recognition. */
export function makeKey(): { key: string; hash: string; prefix: string } {
  const key = PREFIX + randomBytes(32).toString('base64url');
  return { key, hash: hashKey(key), prefix: key.slice(0, PREFIX_CHARS) };
}

export function hashKey(key: string): string {
  return createHash('sha256').update(key).digest('hex');
}

/** Requests a minute of the key that an install makes for itself: its owner is not to be slowed down. */
const OWNER_RPM = 1_000_000;

/**
 * The key of an install: `keep` gives the one kept in the data folder, or keeps the one it is handed. Its row is
 * written if the database does not know it (a new database, or the folder's very first start). Errors: CONFLICT.
 */
export async function ensureKey(
  db: Db,
  newId: NewId,
  tenant_id: string,
  keep: (make: () => string) => Promise<string>,
): Promise<string> {
  const key = await keep(() => makeKey().key);
  // What is left of a damaged file would be a key to everything that anybody can guess.
  if (!/^msk_[\w-]{20,}$/.test(key))
    throw new KilnError(
      'CONFLICT',
      'The file api.key in the data folder does not hold a key (msk_ and at least 20 characters). Restore it, or remove it: then the next start makes a new one.',
    );
  if (!(await apiKeyByHash(db, hashKey(key))))
    await insertApiKey(db, {
      id: newId('key'),
      tenant_id,
      name: 'first start',
      key_hash: hashKey(key),
      key_prefix: key.slice(0, PREFIX_CHARS),
      key_type: 'admin',
      purpose: null,
      scopes: ['*'],
      project_id: null,
      rate_limit_rpm: OWNER_RPM,
      expires_at: null,
    });
  return key;
}

export interface Authenticator {
  /** Errors: INVALID_TOKEN, RATE_LIMITED. */
  authenticate(authorization: string | null): Promise<Caller>;
}

export function makeAuthenticator(of: { database: Database; now: () => Date }): Authenticator {
  const buckets = new Map<string, Bucket>();
  const touched = new Map<string, number>();
  return {
    async authenticate(authorization) {
      const now = of.now();
      const token = /^Bearer +([\x21-\x7e]{1,512}) *$/i.exec(authorization ?? '')?.[1];
      if (token === undefined)
        throw new KilnError('INVALID_TOKEN', 'Send the API key as `Authorization: Bearer msk_…`.');
      const key = await apiKeyByHash(of.database.db, hashKey(token));
      if (!key || key.revoked_at !== null || (key.expires_at !== null && key.expires_at <= now))
        throw new KilnError('INVALID_TOKEN', 'This API key is unknown, expired or revoked; make a new one.');
      take(buckets, key, now.getTime());
      if (now.getTime() - (touched.get(key.id) ?? 0) >= TOUCH_MS) {
        touched.set(key.id, now.getTime());
        await touchApiKey(of.database.db, key.id, now);
      }
      return callerOf(key);
    },
  };
}

interface Bucket {
  tokens: number;
  at_ms: number;
}

/** Token bucket of one minute's allowance, refilled evenly; kept per engine. */
function take(buckets: Map<string, Bucket>, key: ApiKey, now_ms: number): void {
  const per_ms = key.rate_limit_rpm / 60_000;
  const bucket = buckets.get(key.id) ?? { tokens: key.rate_limit_rpm, at_ms: now_ms };
  bucket.tokens = Math.min(key.rate_limit_rpm, bucket.tokens + (now_ms - bucket.at_ms) * per_ms);
  bucket.at_ms = now_ms;
  buckets.set(key.id, bucket);
  if (bucket.tokens < 1) {
    const retry_after = Math.max(1, Math.ceil((1 - bucket.tokens) / per_ms / 1000));
    throw new KilnError(
      'RATE_LIMITED',
      `This key may send ${key.rate_limit_rpm} requests a minute; wait ${retry_after} s.`,
      { details: { retry_after } },
    );
  }
  bucket.tokens -= 1;
}

/** A scope includes weaker ones: writing includes reading, and all of the deployment includes publishing it. */
const INCLUDED_IN: Partial<Record<Scope, readonly Scope[]>> = {
  'sandboxes:read': ['sandboxes:write'],
  'deployments:read': [
    'deployments:write',
    'deployments:publish',
    'deployments:promote',
    'deployments:propose',
  ],
  'deployments:publish': ['deployments:write'],
  'deployments:propose': ['deployments:promote', 'deployments:write'],
  'deployments:promote': ['deployments:write'],
};

export function callerOf(key: ApiKey): Caller {
  const held = new Set(key.scopes);
  return {
    key,
    tenant_id: key.tenant_id,
    project_id: key.project_id,
    may: (scope) =>
      held.has('*') || held.has(scope) || (INCLUDED_IN[scope] ?? []).some((wider) => held.has(wider)),
  };
}

/** Errors: INSUFFICIENT_SCOPE. */
export function needScope(caller: Caller, scope: Scope, to_do = 'do this'): void {
  if (!caller.may(scope))
    throw new KilnError(
      'INSUFFICIENT_SCOPE',
      `This API key may not ${to_do}; it needs the scope ${scope === '*' ? '`*` (everything)' : `\`${scope}\``}.`,
      { details: { needed_scope: scope } },
    );
}
