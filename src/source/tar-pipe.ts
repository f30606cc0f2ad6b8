import { MessageChannel } from 'node:worker_threads';
import { type FullSlab, freeSlab, giveUp, makeSlabs, viewSlab } from './slabs.ts';
import { orderEntries } from './tar-plan.ts';
import type { TarSummary, TarTask } from './tar-writer.ts';
import { runTask } from './threads.ts';

/** Gives each slab to `consume`, one after the other; a slab may be reused once its promise resolves. */
export type SlabConsumer = (slab: Buffer) => Promise<void>;

/** Runs one tar through a thread. Rejects with what the thread threw, or with the error of `consume`. */
export async function streamTar(
  of: Omit<TarTask, 'entries'>,
  consume: SlabConsumer,
  signal?: AbortSignal,
): Promise<TarSummary> {
  const slabs = makeSlabs();
  const { port1, port2 } = new MessageChannel();
  let failed: { error: unknown } | null = null;
  const abandon = (error: unknown) => {
    failed ??= { error };
    giveUp(slabs);
  };
  const onAbort = () => abandon(signal?.reason);
  signal?.addEventListener('abort', onAbort);
  if (signal?.aborted) onAbort();
  let consumed = Promise.resolve();
  const drained = new Promise<void>((resolve) => {
    port1.on('message', (message: 'end' | FullSlab) => {
      if (message === 'end') {
        consumed.then(resolve);
        return;
      }
      consumed = consumed
        .then(() => (failed ? undefined : consume(viewSlab(slabs, message))))
        .then(() => freeSlab(slabs, message.slot))
        .catch(abandon);
    });
  });
  try {
    const tar: TarTask = { ...of, entries: orderEntries(of) };
    const summary = await runTask({ kind: 'tar', tar, slabs, port: port2 }, [port2]);
    await drained;
    if (failed) throw (failed as { error: unknown }).error;
    return summary;
  } catch (error) {
    throw failed ? (failed as { error: unknown }).error : error;
  } finally {
    signal?.removeEventListener('abort', onAbort);
    port1.close();
    await consumed; // nobody touches the slabs any more
  }
}
