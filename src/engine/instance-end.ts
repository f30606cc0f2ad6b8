/** The end of an instance: what its row says when it ended by itself, and when nothing is sent to it any more. */
import type { Failure } from '../domain/failure.ts';
import { lockInstance, setInstanceRole, setInstanceState } from '../store/instance.ts';
import { ackedGeneration, currentGeneration } from '../store/route.ts';
import { transact } from '../store/transact.ts';
import type { EngineContext } from './context.ts';

const BACKOFF_MS = [500, 1000, 2000, 4000, 8000, 15_000, 30_000];
export const LONGEST_BACKOFF_MS = BACKOFF_MS.at(-1)!;
const ROUTES_ACK_MS = 10_000;

/** Gives the time after which it is to be started again, milliseconds; null when it is not. */
export async function recordCrash(ctx: EngineContext, id: string, failure: Failure): Promise<number | null> {
  return transact(ctx.db, async (trx) => {
    // Locked: a promotion that is about to give it another role waits, or has done so.
    const row = await lockInstance(trx, id);
    if (!row || row.stopped_at !== null || row.engine_id !== ctx.id) return null;
    if (row.role !== 'live') {
      // A gating one is judged by its gate; a warm one is of no use any more.
      await setInstanceState(trx, id, 'error', { failure });
      if (row.role === 'warm') await setInstanceRole(trx, row, 'retired');
      return null;
    }
    const crashes = row.restart_count + 1;
    const given_up = crashes > ctx.bounds.crash_restarts;
    const wait_ms = BACKOFF_MS[Math.min(crashes - 1, BACKOFF_MS.length - 1)]!;
    await setInstanceState(trx, id, given_up ? 'error' : 'unhealthy', {
      failure,
      restart_count: crashes,
      next_start_at: given_up ? null : new Date(Date.now() + wait_ms),
    });
    return given_up ? null : wait_ms;
  });
}

/** Every living edge serves the present routes: what is not in them gets no new request. At the latest when `over`. */
export async function untilUnrouted(ctx: EngineContext, over: Promise<void>): Promise<void> {
  let is_over = false;
  void over.then(() => {
    is_over = true;
  });
  const generation = await currentGeneration(ctx.db);
  await Promise.race([ctx.edge.waitForGeneration(generation, ROUTES_ACK_MS), over]);
  for (let waited_ms = 0; waited_ms < ROUTES_ACK_MS && !is_over; waited_ms += 100) {
    if ((await ackedGeneration(ctx.db, ctx.timings.engine_silent_ms)) >= generation) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
