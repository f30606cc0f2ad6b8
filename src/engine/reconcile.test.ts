/** What the reconciler puts right: replicas, orphans, and engines that were silent for long. */
import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import {
  anIntent,
  aReleasedVersion,
  type BareEngine,
  bareEngine,
  until,
} from '../../test/support/bare-engine.ts';
import { aDeployment } from '../../test/support/rows.ts';
import type { Deployment } from '../domain/deployment.ts';
import type { Instance } from '../domain/instance.ts';
import type { Version } from '../domain/version.ts';
import { testDatabase } from '../store/database.fixture.ts';
import type { Database } from '../store/db.ts';
import { setReplicas } from '../store/deployment.ts';
import { livingEngineIds, registerEngine, removeEngine } from '../store/engine.ts';
import { instanceById, setInstanceState, unstoppedInstances } from '../store/instance.ts';
import { acknowledgeRoutes } from '../store/route.ts';
import { adoptInstances } from './reconcile.ts';

describe('the reconciler', () => {
  let database: Database;
  let engine: BareEngine;
  let deployment: Deployment;
  let version: Version;
  before(async () => {
    database = await testDatabase();
  });
  beforeEach(async () => {
    engine = await bareEngine(database, 'eng_a');
    deployment = await aDeployment(database.db);
    version = await aReleasedVersion(engine.ctx, deployment, { kind: 'dynamic', state: 'building' });
    await engine.worker.handle((await anIntent(engine.ctx, version, 'publish')).id);
    await until('it is live', async () => (await live()).length === 1);
  });
  afterEach(async () => {
    await engine.close();
    await database.db.updateTable('instances').set({ stopped_at: new Date(), role: 'retired' }).execute();
    await database.db.updateTable('deployments').set({ active_version_id: null }).execute();
    for (const id of ['eng_a', 'eng_b']) await removeEngine(database.db, id);
  });
  after(() => database.close());

  const rows = () => unstoppedInstances(database.db, { deployment_id: deployment.id });
  const live = async () => (await rows()).filter((row) => row.role === 'live');
  const routed = async () => (await live()).filter((row) => row.state === 'healthy').length;

  /** Writes over what an engine has written, as another one would that took over. */
  async function given(row: Instance, engine_id: string, state: Instance['state']): Promise<void> {
    await database.db
      .transaction()
      .execute((trx) => setInstanceState(trx, row.id, state, { engine_id, pid: 1 }));
  }

  /** As with the timer: an instance that something is being done to is left for the next pass. */
  const passesUntil = (what: string, holds: () => Promise<boolean> | boolean) =>
    until(what, async () => {
      await engine.reconciler.pass();
      return holds();
    });

  test('live instances become as many as are wanted, whoever changed the number and when', async () => {
    for (const wanted of [3, 1, 0, 2]) {
      await database.db.transaction().execute((trx) => setReplicas(trx, deployment.id, wanted));
      await passesUntil(`${wanted} run`, async () => {
        return (await rows()).length === wanted && (await routed()) === wanted;
      });
      assert.equal(engine.runtime.running.size, wanted);
    }
  });

  test('a machine whose row another engine has is ended here, and the row stays that engine’s', async () => {
    const [row] = await live();
    await registerEngine(database.db, { id: 'eng_b', host: 'test', pid: 1 });
    await acknowledgeRoutes(database.db, 'eng_b', Number.MAX_SAFE_INTEGER);
    await given(row!, 'eng_b', 'starting');
    await passesUntil('it is ended', () => engine.runtime.running.size === 0);
    const after = (await instanceById(database.db, row!.id))!;
    assert.deepEqual([after.engine_id, after.state, after.role, after.pid], ['eng_b', 'starting', 'live', 1]);
  });

  test('a machine whose row was stopped by another engine is ended', async () => {
    const [row] = await live();
    await given(row!, 'eng_b', 'stopped');
    await passesUntil('it is ended', () => !engine.runtime.running.has(row!.id));
  });

  test('what dies here after another engine has taken it over says nothing about it', async () => {
    const [row] = await live();
    await given(row!, 'eng_b', 'healthy');
    await engine.runtime.running.get(row!.id)!.crash();
    await until('its end is noticed', () => !engine.supervisor.here().has(row!.id));
    await engine.supervisor.stop();
    const after = (await instanceById(database.db, row!.id))!;
    assert.deepEqual([after.state, after.restart_count, after.failure], ['healthy', 0, null]);
  });

  test('an engine that was silent for so long that its row went is back with its next pass', async () => {
    await removeEngine(database.db, 'eng_a');
    await engine.reconciler.pass();
    assert.deepEqual(await livingEngineIds(database.db), ['eng_a']);
    assert.equal((await live())[0]!.engine_id, 'eng_a', 'what nobody took over is still its own');
  });

  test('an orphan that cannot be taken over holds nothing else up', async () => {
    const [row] = await live();
    const broken = await aDeployment(database.db);
    const other = await aReleasedVersion(engine.ctx, broken, { kind: 'dynamic', state: 'building' });
    await engine.worker.handle((await anIntent(engine.ctx, other, 'publish')).id);
    const [bad] = await unstoppedInstances(database.db, { deployment_id: broken.id });
    const gone = engine;
    await gone.supervisor.stop();
    // Both are of an engine that is gone; the environment of one cannot be opened (another vault's, say).
    await given(bad!, 'eng_gone', 'healthy');
    await given(row!, 'eng_gone', 'healthy');
    await database.db
      .updateTable('versions')
      .set({ env_encrypted: 'v1.not.to.open' })
      .where('id', '=', other.id)
      .execute();
    engine = await bareEngine(database, 'eng_b', gone.ctx);
    engine.runtime.survives_engine = true;
    await adoptInstances(engine.ctx, 'starting', engine.supervisor);
    await engine.reconciler.pass();
    await passesUntil('the whole one runs here', () => engine.runtime.running.has(row!.id));
    assert.ok(
      engine.said.some((line) => line.includes(bad!.id)),
      'the log names the one that could not be taken over',
    );
    await gone.close();
  });
});
