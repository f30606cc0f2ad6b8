/**
 * Idempotency-Key: one key, one execution (I6), told as a loop around the store's rules. The key belongs to tenant,
 * method and path. Whoever inserts the row executes; others wait for the answer. An answer is kept unless it is one
 * that a repetition may better (5xx, 429). Answers are sealed: the one of `POST /api-keys` holds a key.
 */
import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { KilnError } from '../domain/errors.ts';
import type { Db } from '../store/db.ts';
import {
  abandonIdempotent,
  beginIdempotent,
  extendIdempotent,
  finishIdempotent,
  forgetIdempotent,
  type KeyScope,
  readIdempotent,
} from '../store/idempotency.ts';
import type { Vault } from '../store/vault.ts';

const LOCK_MS = 30_000;
const EXTEND_MS = 10_000;
/** Between two looks at a running one. */
const POLL_MS = [25, 25, 50, 50, 100, 100, 200];

export interface Replayable {
  status: number;
  text: string;
}

export interface Attempt {
  db: Db;
  vault: Vault;
  scope: KeyScope;
  body_sha256: string;
  signal: AbortSignal;
  /** `previous` is what an attempt had made whose answer was lost. */
  execute(previous: Record<string, unknown> | null): Promise<Replayable>;
  /** Older answers are forgotten. */
  retention_ms: number;
  /** False: the stored answer was overtaken, execute again. `subject` is what the first execution recorded. */
  stillTrue(subject: Record<string, unknown> | null): Promise<boolean>;
}

/** Errors: IDEMPOTENCY_KEY_REUSED, UNAVAILABLE (the caller hung up while waiting), and those of `execute`. */
export async function once(attempt: Attempt): Promise<Replayable & { replayed: boolean }> {
  const { db, scope } = attempt;
  await forgetIdempotent(db, scope, new Date(Date.now() - attempt.retention_ms));
  for (;;) {
    const begun = await beginIdempotent(db, scope, attempt.body_sha256, LOCK_MS);
    if (begun.kind === 'execute') return { ...(await run(attempt, begun.previous_subject)), replayed: false };
    if (begun.kind === 'other_body')
      throw new KilnError(
        'IDEMPOTENCY_KEY_REUSED',
        'This Idempotency-Key was used with a different request; take a new key for a new request.',
      );
    if (begun.kind === 'done') {
      const { status, answer, subject } = begun.stored;
      if (await attempt.stillTrue(subject))
        return { status, text: attempt.vault.open(answer, contextOf(scope)), replayed: true };
      // Of several callers that find it overtaken one executes, and the others wait for that one.
      await forgetIdempotent(db, scope, null);
      continue;
    }
    await wait(attempt);
  }
}

async function run(attempt: Attempt, previous: Record<string, unknown> | null): Promise<Replayable> {
  const { db, scope } = attempt;
  // A lost extension shows when the answer is stored: zero rows then, and the new owner's answer stands.
  const timer = setInterval(() => extendIdempotent(db, scope, LOCK_MS).catch(() => {}), EXTEND_MS);
  timer.unref();
  let answer: Replayable | undefined;
  try {
    answer = await attempt.execute(previous);
    return answer;
  } finally {
    clearInterval(timer);
    if (answer && answer.status < 500 && answer.status !== 429)
      await finishIdempotent(db, scope, answer.status, attempt.vault.seal(answer.text, contextOf(scope)));
    else await abandonIdempotent(db, scope);
  }
}

/** Until the running one has an answer, or is gone and may be tried again. */
async function wait(attempt: Attempt): Promise<void> {
  for (let looks = 0; ; looks++) {
    await sleep(POLL_MS[Math.min(looks, POLL_MS.length - 1)]!);
    if (attempt.signal.aborted)
      throw new KilnError('UNAVAILABLE', 'The request with this Idempotency-Key is still running.');
    if ((await readIdempotent(attempt.db, attempt.scope)) !== 'running') return;
    // Now and then: the owner may have died, then its lock runs out and `begin` takes it over.
    if (looks > 0 && looks % 10 === 0) return;
  }
}

function contextOf(scope: KeyScope): string {
  return ['answer', scope.tenant_id, scope.method, scope.path, scope.key].join('\0');
}

/** What makes two requests the same: body and query, but not how long the caller wants to wait. */
export function fingerprint(url: URL, body: Buffer): string {
  const query = new URLSearchParams(url.search);
  query.delete('wait');
  query.sort();
  return createHash('sha256').update(`${query}\n`).update(body).digest('hex');
}

const KEY_CHARS = 500;

/** Opaque by contract, so only its length is looked at. Errors: VALIDATION_ERROR. */
export function keyOf(request: Request): string | null {
  const key = request.headers.get('idempotency-key')?.trim();
  if (!key) return null;
  if (key.length > KEY_CHARS)
    throw new KilnError('VALIDATION_ERROR', `Idempotency-Key is longer than ${KEY_CHARS} characters.`, {
      fields: { 'Idempotency-Key': [`must be at most ${KEY_CHARS} characters`] },
    });
  return key;
}
