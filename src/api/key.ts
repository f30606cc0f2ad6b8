/** API keys: made (and shown) once, listed, revoked. */

import { KilnError } from '../domain/errors.ts';
import type { ApiKey, Scope } from '../domain/tenant.ts';
import { countApiKeys, getApiKey, insertApiKey, listApiKeys, revokeApiKey } from '../store/api-key.ts';
import { recordSubject } from '../store/idempotency.ts';
import { projectOf } from '../store/tenant.ts';
import { transact } from '../store/transact.ts';
import { makeKey } from './auth.ts';
import { type AnyCall, data, handle, type Mounted, reply } from './call.ts';
import * as contract from './contract/key.ts';
import { invalidFields } from './errors.ts';
import { iso, notFound, pageOf } from './find.ts';

const DEFAULT_RPM = 6000;
const MAX_KEYS = 10_000;
/** What a key may do unless told otherwise: work with apps, but make no keys. */
const DEFAULT_SCOPES: Scope[] = [
  'sandboxes:write',
  'deployments:write',
  'domains:write',
  'data:write',
  'usage:read',
];

function present(key: ApiKey, now: Date): contract.KeyView {
  const expired = key.expires_at !== null && key.expires_at <= now;
  return {
    id: key.id,
    name: key.name,
    key_prefix: key.key_prefix,
    key_type: key.key_type,
    key_purpose: key.purpose,
    scopes: key.scopes,
    project_id: key.project_id,
    rate_limit_rpm: key.rate_limit_rpm,
    status: key.revoked_at !== null ? 'revoked' : expired ? 'expired' : 'active',
    expires_at: iso(key.expires_at),
    revoked_at: iso(key.revoked_at),
    last_used_at: iso(key.last_used_at),
    created_at: iso(key.created_at),
  };
}

/** A key can only hand out what it has. Errors: FORBIDDEN, NOT_FOUND. */
async function checkGrant(call: AnyCall, scopes: Scope[], project_id: string | null): Promise<void> {
  const { caller } = call;
  const beyond = scopes.filter((scope) => !caller.may(scope));
  if (beyond.length > 0)
    throw new KilnError(
      'FORBIDDEN',
      `This key cannot make a key with scopes it does not have: ${beyond.join(', ')}.`,
    );
  if (caller.project_id !== null && project_id !== caller.project_id)
    throw new KilnError('FORBIDDEN', 'A key of one project can only make keys of the same project.');
  if (project_id !== null && !(await projectOf(call.deps.database.db, caller.tenant_id, project_id)))
    throw notFound('project', project_id);
}

const seen = (call: AnyCall, key: ApiKey) =>
  call.caller.project_id === null || key.project_id === call.caller.project_id;

export const keyHandlers: Mounted[] = [
  handle(contract.listKeys, async (call) => {
    const { tenant_id, project_id } = call.caller;
    const page = await listApiKeys(call.deps.database.db, { tenant_id, project_id }, pageOf(call.query));
    const now = call.deps.now();
    return reply({ data: page.data.map((key) => present(key, now)), next_cursor: page.next_cursor });
  }),
  handle(contract.createKey, async (call) => {
    const { deps, caller, body, idempotency } = call;
    const scopes = body.scopes ?? DEFAULT_SCOPES.filter((scope) => caller.may(scope));
    const project_id = body.project_id ?? caller.project_id;
    await checkGrant(call, scopes, project_id);
    const expires_at = expiry(call, body);
    if ((await countApiKeys(deps.database.db, caller.tenant_id, deps.now())) >= MAX_KEYS)
      throw new KilnError('TOO_MANY', `There are ${MAX_KEYS} working keys; revoke some first.`);
    const fresh = makeKey();
    const row = await transact(deps.database.db, async (trx) => {
      // An attempt whose answer was lost has made a key nobody has seen: it must not live on.
      const lost = idempotency?.previous?.key_id;
      if (typeof lost === 'string') await revokeApiKey(trx, caller.tenant_id, lost);
      const made = await insertApiKey(trx, {
        id: deps.newId('key'),
        tenant_id: caller.tenant_id,
        name: body.name,
        key_hash: fresh.hash,
        key_prefix: fresh.prefix,
        key_type: body.key_type ?? 'user',
        purpose: body.purpose ?? body.key_purpose ?? null,
        scopes,
        project_id,
        rate_limit_rpm: Math.min(body.rate_limit_rpm ?? DEFAULT_RPM, caller.key.rate_limit_rpm),
        expires_at,
      });
      if (idempotency) await recordSubject(trx, idempotency.scope, { key_id: made.id });
      return made;
    });
    return data({ ...present(row, deps.now()), key: fresh.key }, 201);
  }),
  handle(contract.revokeKey, async (call) => {
    const { db } = call.deps.database;
    const { id } = call.params;
    const key = await getApiKey(db, call.caller.tenant_id, id);
    if (!key || !seen(call, key)) throw notFound('API key', id);
    if (key.revoked_at === null) await revokeApiKey(db, call.caller.tenant_id, id);
    return reply({ id, deleted: true, status: 'revoked' });
  }),
];

/** A key that ends cannot make one that outlives it: the earliest of all that was said; null for never. */
function expiry(
  call: AnyCall,
  body: { expires_in_sec?: number | null; expires_at?: string | null },
): Date | null {
  const now_ms = call.deps.now().getTime();
  const ends_ms: number[] = [];
  if (body.expires_in_sec != null) ends_ms.push(now_ms + body.expires_in_sec * 1000);
  if (body.expires_at != null) ends_ms.push(Date.parse(body.expires_at));
  if (ends_ms.some((at) => at <= now_ms)) throw invalidFields({ expires_at: ['must be in the future'] });
  const { expires_at: own } = call.caller.key;
  if (own !== null) ends_ms.push(own.getTime());
  return ends_ms.length === 0 ? null : new Date(Math.min(...ends_ms));
}
