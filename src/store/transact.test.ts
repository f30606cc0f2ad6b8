import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { aDeployment, newId } from '../../test/support/rows.ts';
import { KilnError } from '../domain/errors.ts';
import { testDatabase } from './database.fixture.ts';
import type { Database, Trx } from './db.ts';
import { deploymentById, lockDeployment, setDeploymentState, switchActiveVersion } from './deployment.ts';
import { appendEvent, eventsAfter, lastEventSeq } from './event.ts';
import { bumpRoutes, currentGeneration } from './route.ts';
import { TransactionFailed, transact } from './transact.ts';

const failing = (code: string) => Object.assign(new Error(`made to fail with ${code}`), { code });

describe('transactions', () => {
  let database: Database;
  let tenant_id: string;
  let id: string;
  before(async () => {
    database = await testDatabase();
    ({ tenant_id, id } = await aDeployment(database.db));
  });
  after(() => database.close());

  const told = (trx: Trx) =>
    appendEvent(trx, { id: newId('evt'), tenant_id, type: 'webhook.test', data: {} });
  const state = async () => (await deploymentById(database.db, id))!.state;

  for (const code of ['40P01', '40001', '57P01', '08006', 'ECONNRESET'])
    test(`what the database ended with ${code} runs again, and is written once`, async () => {
      const before = await lastEventSeq(database.db, tenant_id);
      let tries = 0;
      await transact(database.db, async (trx) => {
        await lockDeployment(trx, id);
        await told(trx);
        if (++tries < 3) throw failing(code);
      });
      assert.equal(tries, 3);
      assert.equal(await lastEventSeq(database.db, tenant_id), before + 1);
    });

  test('what fails that way every time is said to be worth another try later; nothing is written', async () => {
    let tries = 0;
    const work = transact(database.db, async (trx) => {
      tries++;
      await setDeploymentState(trx, id, 'failed');
      throw failing('40P01');
    });
    await assert.rejects(work, (error) => {
      assert.ok(error instanceof TransactionFailed);
      assert.equal(error.code, 'UNAVAILABLE');
      assert.match(error.message, /made to fail with 40P01.*try again/);
      return true;
    });
    assert.ok(tries > 2, `${tries} tries`);
    assert.equal(await state(), 'pending');
  });

  for (const error of [failing('23505'), new KilnError('CONFLICT', 'no'), new Error('a fault')])
    test(`any other error is the caller's at once: ${error.message}`, async () => {
      let tries = 0;
      const work = transact(database.db, async () => {
        tries++;
        throw error;
      });
      await assert.rejects(work, error);
      assert.equal(tries, 1);
    });

  test('routes and events come last, the routes once, whatever the order they were asked for in', async () => {
    const generation = await currentGeneration(database.db);
    const seq = await lastEventSeq(database.db, tenant_id);
    await transact(database.db, async (trx) => {
      await told(trx);
      await bumpRoutes(trx);
      await switchActiveVersion(trx, { deployment_id: id, version_id: 'ver_x', seq: 7 });
      await told(trx);
      await bumpRoutes(trx);
      assert.equal(await currentGeneration(trx), generation);
      assert.equal(await lastEventSeq(trx, tenant_id), seq);
    });
    assert.equal(await currentGeneration(database.db), generation + 1);
    assert.equal((await deploymentById(database.db, id))!.route_generation, generation + 1);
    const events = await eventsAfter(database.db, { tenant_id, after_seq: seq, limit: 10 });
    assert.deepEqual(
      events.map((event) => event.seq),
      [seq + 1, seq + 2],
    );
  });

  test('in a transaction begun otherwise they are written at once', async () => {
    const generation = await currentGeneration(database.db);
    await database.db.transaction().execute(async (trx) => {
      await bumpRoutes(trx);
      assert.equal(await currentGeneration(trx), generation + 1);
    });
  });
});
