/**
 * The durable wake-up. A job only says "look at this operation, and then at what else waits"; the operations table is the
 * truth, so a job that is lost, late or delivered twice changes nothing (I12). Sent in the same transaction as the rows it
 * is about.
 */
import { fromKysely, PgBoss } from 'pg-boss';
import type { Deployment } from '../domain/deployment.ts';
import { KilnError } from '../domain/errors.ts';
import type { OperationKind } from '../domain/operation.ts';
import type { Conn, Database, Trx } from '../store/db.ts';
import { countUnfinished } from '../store/operation.ts';
import type { Log } from './context.ts';

/** Publishes wait for each other up to the limit; promotes and rollbacks have their own lane, so that they never do. */
export type Lane = 'publish' | 'switch';
export const KINDS = {
  publish: ['publish', 'verify'],
  switch: ['promote', 'rollback'],
} as const satisfies Record<Lane, OperationKind[]>;

/**
 * Counted per lane: a rollback has nothing to do with how many publishes wait. The lock of the deployment makes the count
 * true; without it (before a snapshot is made, say) it spares work only. Errors: TOO_MANY.
 */
export async function refuseTooMany(
  db: Conn,
  deployment: Deployment,
  lane: Lane,
  limit: number,
): Promise<void> {
  const waiting = await countUnfinished(db, deployment.id, KINDS[lane]);
  if (waiting < limit) return;
  const what = lane === 'publish' ? 'publishes and verifications' : 'promotions and rollbacks';
  throw new KilnError(
    'TOO_MANY',
    `${waiting} ${what} of ${deployment.slug} are waiting or running already; wait for them or cancel some.`,
  );
}

type Wanted = { id: string; kind: OperationKind };

export interface Queue {
  start(look: Look): Promise<void>;
  /** Wakes a worker once the transaction has committed. */
  send(trx: Trx, of: Wanted): Promise<void>;
  /** The same for operations that wait already: for as many as there are free places here. */
  sendAgain(trx: Trx, waiting: Wanted[]): Promise<void>;
  stop(): Promise<void>;
}

export interface Look {
  handle(operation_id: string): Promise<void>;
  /** The next operation of the lane that nobody works on although its turn has come, none of `tried`. */
  next(lane: Lane, tried: ReadonlySet<string>): Promise<string | null>;
}

const NAMES = { publish: 'kiln-publish', switch: 'kiln-switch' } as const satisfies Record<Lane, string>;
const LANES = Object.keys(NAMES) as Lane[];
const SWITCHES_AT_ONCE = 8;
/** As long as pg-boss allows. An expired job frees its place although its operation goes on; no more comes of it. */
const JOB_EXPIRES_SECONDS = 24 * 3600 - 1;
/** After this long in one job, the rest is left to the jobs of its own: well before a job expires. */
const LOOK_ON_MS = 3600 * 1000;

/** Notifications wake the workers, and the reconciler sends again what nobody took: polling is a third net only. */
const POLL_SECONDS = 30;

interface Job {
  operation_id: string;
}

export function makeQueue(database: Database, of: { concurrency: number; say: Log }): Queue {
  return new BossQueue(database, of);
}

class BossQueue implements Queue {
  readonly #boss: PgBoss;
  readonly #owns_pool: boolean;
  readonly #places: Record<Lane, number>;
  readonly #busy: Record<Lane, number> = { publish: 0, switch: 0 };

  constructor(database: Database, { concurrency, say }: { concurrency: number; say: Log }) {
    this.#owns_pool = database.kind === 'postgres';
    this.#places = { publish: concurrency, switch: SWITCHES_AT_ONCE };
    this.#boss = new PgBoss({
      ...database.forBoss,
      schema: 'kiln_queue',
      useListenNotify: true,
      schedule: false,
      // Its own list of living instances, which nobody reads: the table `engines` is ours.
      registerInstance: false,
    });
    this.#boss.on('error', (error) => say('warn', 'the queue reported an error', { error: String(error) }));
  }

  async start(look: Look): Promise<void> {
    const boss = this.#boss;
    await boss.start();
    const names = Object.values(NAMES);
    const known = new Set((await boss.getQueues(names)).map((queue) => queue.name));
    // For one that is there it would do nothing, under a lock of the whole queue and in 50 ms.
    for (const name of names.filter((one) => !known.has(one)))
      await boss.createQueue(name, {
        notify: true,
        retryLimit: 0,
        expireInSeconds: JOB_EXPIRES_SECONDS,
        deleteAfterSeconds: 3600,
      });
    for (const lane of LANES) {
      const options = { localConcurrency: this.#places[lane], pollingIntervalSeconds: POLL_SECONDS };
      await boss.work<Job>(NAMES[lane], options, async ([job]) => {
        if (job) await this.#serve(lane, job.data.operation_id, look);
      });
    }
  }

  /**
   * After a job a worker sleeps until it is notified, even if there are more. So a place that becomes free looks for what waits
   * by itself: nothing that could run waits for a poll, however many jobs of operations long done lie before its own.
   */
  async #serve(lane: Lane, operation_id: string, look: Look): Promise<void> {
    const started_ms = performance.now();
    const tried = new Set<string>();
    this.#busy[lane]++;
    try {
      for (let id: string | null = operation_id; id !== null; id = await look.next(lane, tried)) {
        tried.add(id);
        await look.handle(id);
        if (performance.now() - started_ms > LOOK_ON_MS) return;
      }
    } finally {
      this.#busy[lane]--;
    }
  }

  async send(trx: Trx, { id, kind }: Wanted): Promise<void> {
    await this.#boss.send(NAMES[laneOf(kind)], { operation_id: id } satisfies Job, { db: fromKysely(trx) });
  }

  async sendAgain(trx: Trx, waiting: Wanted[]): Promise<void> {
    for (const lane of LANES) {
      const free = Math.max(0, this.#places[lane] - this.#busy[lane]);
      for (const operation of waiting.filter(({ kind }) => laneOf(kind) === lane).slice(0, free))
        await this.send(trx, operation);
    }
  }

  /** Its own pool of connections goes as well; the database's stays. */
  async stop(): Promise<void> {
    await this.#boss.stop({ graceful: false, close: this.#owns_pool });
  }
}

function laneOf(kind: OperationKind): Lane {
  return kind === 'promote' || kind === 'rollback' ? 'switch' : 'publish';
}
