/**
 * The durable wake-up. A job only says "look at this operation"; the operations table is the truth, so a job that is
 * lost, late or delivered twice changes nothing (I12). Sent in the same transaction as the rows it is about.
 */
import { fromKysely, PgBoss } from 'pg-boss';
import type { OperationKind } from '../domain/operation.ts';
import type { Database, Trx } from '../store/db.ts';
import type { Log } from './context.ts';

export interface Queue {
  start(handle: (operation_id: string) => Promise<void>): Promise<void>;
  /** Wakes a worker once the transaction has committed. */
  send(trx: Trx, of: { id: string; kind: OperationKind }): Promise<void>;
  stop(): Promise<void>;
}

/** Publishes wait for each other up to the limit; promotes and rollbacks have their own lane, so that they never do. */
const LANES = { publish: 'kiln-publish', switch: 'kiln-switch' } as const;
const SWITCHES_AT_ONCE = 8;
/** Longer than any operation may take; an expired job would only mean one more look. */
const JOB_EXPIRES_SECONDS = 6 * 3600;

/** Notifications wake the workers, and the reconciler sends again what nobody took: polling is a third net only. */
const POLL_SECONDS = 30;

interface Job {
  operation_id: string;
}

export function makeQueue(database: Database, of: { concurrency: number; say: Log }): Queue {
  const boss = new PgBoss({
    ...database.forBoss,
    schema: 'kiln_queue',
    useListenNotify: true,
    schedule: false,
    // Its own list of living instances, which nobody reads: the table `engines` is ours.
    registerInstance: false,
  });
  boss.on('error', (error) => of.say('warn', 'the queue reported an error', { error: String(error) }));
  const lane = (kind: OperationKind) =>
    kind === 'promote' || kind === 'rollback' ? LANES.switch : LANES.publish;
  return {
    async start(handle) {
      await boss.start();
      const names = Object.values(LANES);
      const known = new Set((await boss.getQueues(names)).map((queue) => queue.name));
      // For one that is there it would do nothing, under a lock of the whole queue and in 50 ms.
      for (const name of names.filter((one) => !known.has(one)))
        await boss.createQueue(name, {
          notify: true,
          retryLimit: 0,
          expireInSeconds: JOB_EXPIRES_SECONDS,
          deleteAfterSeconds: 3600,
        });
      const work = (name: string, localConcurrency: number) =>
        boss.work<Job>(name, { localConcurrency, pollingIntervalSeconds: POLL_SECONDS }, async ([job]) => {
          if (job) await handle(job.data.operation_id);
        });
      await work(LANES.publish, of.concurrency);
      await work(LANES.switch, SWITCHES_AT_ONCE);
    },
    async send(trx, { id, kind }) {
      await boss.send(lane(kind), { operation_id: id } satisfies Job, { db: fromKysely(trx) });
    },
    async stop() {
      await boss.stop({ graceful: false, close: false });
    },
  };
}
