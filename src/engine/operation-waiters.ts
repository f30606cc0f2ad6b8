/** Waiting for the end of operations: woken by notification, and by a look at the row in case one was lost (I12). */
import { KilnError } from '../domain/errors.ts';
import { isFinished, type Operation } from '../domain/operation.ts';
import { getOperation } from '../store/operation.ts';
import type { EngineContext } from './context.ts';

const LOOK_EVERY_MS = 1000;

export class OperationWaiters {
  readonly #ctx: EngineContext;
  readonly #waiting = new Map<string, Set<() => void>>();
  #unlisten: (() => Promise<void>) | null = null;

  constructor(ctx: EngineContext) {
    this.#ctx = ctx;
  }

  async start(): Promise<void> {
    this.#unlisten = await this.#ctx.database.listen('kiln_work', (operation_id) => {
      for (const wake of this.#waiting.get(operation_id) ?? []) wake();
    });
  }

  async stop(): Promise<void> {
    await this.#unlisten?.();
    for (const set of this.#waiting.values()) for (const wake of set) wake();
  }

  /** The row once it is finished, or as it is when the time is over or the signal aborts. */
  async wait(id: string, timeout_ms: number, signal?: AbortSignal): Promise<Operation> {
    const until = performance.now() + timeout_ms;
    for (;;) {
      // Registered before the look, so that an end between the two is not missed.
      const woken = this.#nextWake(id, Math.min(LOOK_EVERY_MS, until - performance.now()), signal);
      const row = await getOperation(this.#ctx.db, id);
      if (!row) throw new KilnError('NOT_FOUND', `There is no operation ${id}.`);
      if (isFinished(row.state) || performance.now() >= until || signal?.aborted) {
        woken.cancel();
        return row;
      }
      await woken.promise;
    }
  }

  #nextWake(id: string, within_ms: number, signal?: AbortSignal) {
    const { promise, resolve } = Promise.withResolvers<void>();
    const set = this.#waiting.get(id) ?? new Set();
    this.#waiting.set(id, set);
    const timer = setTimeout(() => cancel(), Math.max(0, within_ms));
    const cancel = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', cancel);
      set.delete(cancel);
      if (set.size === 0 && this.#waiting.get(id) === set) this.#waiting.delete(id);
      resolve();
    };
    set.add(cancel);
    signal?.addEventListener('abort', cancel, { once: true });
    return { promise, cancel };
  }
}
