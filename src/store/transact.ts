/**
 * Transactions that never wait for each other in a circle. Every transaction locks rows in one order:
 *
 *   deployment → domain, operation → version, build, release → instances (by id) → route_table → tenant (event_seq)
 *
 * Whoever needs several of these begins with the deployment (`lockDeployment`). The last two rows are shared by all
 * deployments, so they are written last of all and held for as short as can be: `bumpRoutes` and `appendEvent` are
 * remembered when they are called and written just before the commit, whatever else the transaction does in between.
 *
 * What the database ends all the same (a deadlock, a serialisation failure, a connection that broke before the commit)
 * runs again from its beginning, so `work` must be written to run twice: queries only, and nothing kept from a try that
 * failed. A connection that broke during the commit is not tried again: nobody knows whether it was written.
 */
import { KilnError } from '../domain/errors.ts';
import type { Db, Trx } from './db.ts';

/** The database did not take the transaction, for no reason of its own: the same may be tried again later. */
export class TransactionFailed extends KilnError {
  constructor(cause: unknown, is_written: 'no' | 'unknown') {
    const why = cause instanceof Error ? cause.message : String(cause);
    super(
      'UNAVAILABLE',
      is_written === 'no'
        ? `The database did not take the change (${why}). Nothing was changed; try again.`
        : `The connection to the database broke while the change was written (${why}). Look whether it was made, and else try again.`,
      { cause },
    );
    this.name = 'TransactionFailed';
  }
}

const TRIES = 6;
const FIRST_PAUSE_MS = 20;
const LONGEST_PAUSE_MS = 1000;

export async function transact<T>(db: Db, work: (trx: Trx) => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    let is_committing = false;
    // The first error says why; what follows it is only that the rollback had no connection either.
    let first: unknown;
    try {
      return await db.transaction().execute(async (trx) => {
        try {
          LAST.set(trx, { routes: new Map(), events: [] });
          const result = await work(trx);
          await writeWhatComesLast(trx);
          is_committing = true;
          return result;
        } catch (error) {
          first = error;
          throw error;
        }
      });
    } catch (error) {
      const why = first ?? error;
      const is_lost = isLostConnection(why);
      if (!is_lost && !isRolledBack(why)) throw why;
      if (is_lost && is_committing) throw new TransactionFailed(why, 'unknown');
      if (tries === TRIES) throw new TransactionFailed(why, 'no');
    }
    const longest_ms = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** tries);
    await new Promise((resolve) => setTimeout(resolve, Math.random() * longest_ms));
  }
}

type Write = () => Promise<unknown>;
const LAST = new WeakMap<Trx, { routes: Map<string, Write>; events: Write[] }>();

/**
 * Puts a write off to the end of the transaction: those of the routes (one per `name`), then events. In a transaction
 * that was not begun by `transact` it is done at once.
 */
export async function writeLast(
  trx: Trx,
  which: { routes: string } | 'event',
  write: () => Promise<unknown>,
): Promise<void> {
  const last = LAST.get(trx);
  if (last === undefined) await write();
  else if (which === 'event') last.events.push(write);
  else if (!last.routes.has(which.routes)) last.routes.set(which.routes, write);
}

async function writeWhatComesLast(trx: Trx): Promise<void> {
  const { routes, events } = LAST.get(trx)!;
  LAST.delete(trx);
  for (const write of routes.values()) await write();
  for (const write of events) await write();
}

/** Deadlock, serialisation failure: the database has undone all of it. */
function isRolledBack(error: unknown): boolean {
  const code = codeOf(error);
  return code === '40P01' || code === '40001';
}

/** Connection exceptions, a server that is going down or coming up, and what sockets and `pg` itself say. */
const LOST_CODE = /^(08...|57P0[123]|ECONNRESET|ECONNREFUSED|EPIPE|ETIMEDOUT)$/;
const LOST_MESSAGE = /^Connection terminated|not queryable|timeout exceeded when trying to connect/;

function isLostConnection(error: unknown): boolean {
  if (LOST_CODE.test(codeOf(error))) return true;
  return error instanceof Error && LOST_MESSAGE.test(error.message);
}

function codeOf(error: unknown): string {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === 'string' ? code : '';
}
