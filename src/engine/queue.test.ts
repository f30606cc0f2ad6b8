import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { sql } from 'kysely';
import { testDatabase } from '../store/database.fixture.ts';
import type { Database } from '../store/db.ts';
import { type Look, makeQueue, type Queue } from './queue.ts';

/** Far less than a worker sleeps between two polls. */
const SOON_MS = 15_000;

async function until(what: string, is_so: () => boolean | Promise<boolean>): Promise<void> {
  const deadline_ms = performance.now() + SOON_MS;
  while (!(await is_so())) {
    if (performance.now() > deadline_ms) throw new Error(`${what}: not within ${SOON_MS} ms`);
    await pause(20);
  }
}

describe('the queue', () => {
  let database: Database;
  let queue: Queue;
  const handled: string[] = [];
  /** Operations that wait, as the table would say. */
  const waiting = new Set<string>();
  let hold: PromiseWithResolvers<void> | null = null;

  const look: Look = {
    async handle(id) {
      handled.push(id);
      waiting.delete(id);
      if (id.startsWith('long')) await hold?.promise;
    },
    next: async (lane, tried) =>
      lane === 'publish' ? ([...waiting].find((id) => !tried.has(id)) ?? null) : null,
  };
  const send = (...ids: string[]) =>
    database.db.transaction().execute(async (trx) => {
      for (const id of ids) await queue.send(trx, { id, kind: 'publish' });
    });
  const jobs = async () => {
    const { rows } = await sql<{ count: number }>`
      select count(*)::int as count from kiln_queue.job where state = 'created'`.execute(database.db);
    return rows[0]!.count;
  };

  before(async () => {
    database = await testDatabase();
  });
  beforeEach(async () => {
    queue = makeQueue(database, { concurrency: 2, say: () => {} });
    await queue.start(look);
    handled.length = 0;
  });
  afterEach(async () => {
    hold?.resolve();
    hold = null;
    waiting.clear();
    await queue.stop();
    await sql`delete from kiln_queue.job`.execute(database.db);
  });
  after(() => database.close());

  it('gets to what waits, however many jobs of operations long done lie before its own', async () => {
    await send(...Array.from({ length: 60 }, (_, n) => `done-${n}`));
    waiting.add('wanted');
    await send('wanted');
    await until('the wanted operation', () => handled.includes('wanted'));
  });

  it('takes up what waits as soon as a place is free, without a job', async () => {
    hold = Promise.withResolvers();
    await send('long-1', 'long-2');
    await until('both places', () => handled.length === 2);
    waiting.add('third').add('fourth');
    await pause(50);
    assert.equal(handled.length, 2);
    hold.resolve();
    await until('the others', () => handled.includes('third') && handled.includes('fourth'));
  });

  it('sends again what waits for as many as there are free places, and nothing when there is none', async () => {
    hold = Promise.withResolvers();
    const all = Array.from({ length: 10 }, (_, n) => ({ id: `op-${n}`, kind: 'publish' as const }));
    await send('long-1', 'long-2');
    await until('both places', () => handled.length === 2);
    for (let pass = 0; pass < 5; pass++)
      await database.db.transaction().execute((trx) => queue.sendAgain(trx, all));
    assert.equal(await jobs(), 0);
    hold.resolve();
    await until('free places', async () => {
      await database.db.transaction().execute((trx) => queue.sendAgain(trx, all));
      return handled.includes('op-0');
    });
  });
});
