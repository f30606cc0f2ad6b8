/** One LISTEN for all event streams of this process: wakes those of the tenant that has something new. */
import type { Database } from '../store/db.ts';

export interface EventHub {
  /** Resolves on the tenant's next event, when `timeout_ms` is over, or when the signal aborts. */
  next(tenant_id: string, timeout_ms: number, signal: AbortSignal): Promise<void>;
}

export function makeEventHub(database: Database): EventHub {
  const waiting = new Map<string, Set<() => void>>();
  let is_listening = false;

  function wake(tenant_id: string): void {
    // An empty payload says that notifications may have been lost: everybody looks.
    const sets = tenant_id === '' ? [...waiting.values()] : [waiting.get(tenant_id) ?? []];
    for (const set of sets) for (const resolve of [...set]) resolve();
  }
  return {
    async next(tenant_id, timeout_ms, signal) {
      if (!is_listening) {
        is_listening = true;
        // Without notifications streams still move, by their periodic look; the next one tries to listen again.
        database.listen('kiln_events', wake).catch(() => {
          is_listening = false;
        });
      }
      const set = waiting.get(tenant_id) ?? new Set();
      waiting.set(tenant_id, set);
      const { promise, resolve } = Promise.withResolvers<void>();
      const timer = setTimeout(resolve, timeout_ms);
      set.add(resolve);
      const onAbort = () => resolve();
      signal.addEventListener('abort', onAbort, { once: true });
      if (signal.aborted) resolve();
      await promise;
      signal.removeEventListener('abort', onAbort);
      clearTimeout(timer);
      set.delete(resolve);
      if (set.size === 0) waiting.delete(tenant_id);
    },
  };
}
