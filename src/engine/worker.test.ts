/** Turns of workers: what they write when instances die under them, the database refuses, or another has taken over. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { sql } from 'kysely';
import {
  anIntent,
  aReleasedVersion,
  aRun,
  type BareEngine,
  bareEngine,
  until,
} from '../../test/support/bare-engine.ts';
import { aDeployment } from '../../test/support/rows.ts';
import type { Deployment } from '../domain/deployment.ts';
import type { Version } from '../domain/version.ts';
import { proveHealthy } from '../pipeline/4-health.ts';
import { promote } from '../pipeline/5-promotion.ts';
import { testDatabase } from '../store/database.fixture.ts';
import type { Database } from '../store/db.ts';
import { deploymentById, setReplicas } from '../store/deployment.ts';
import { instanceById, unstoppedInstances } from '../store/instance.ts';
import { getOperation } from '../store/operation.ts';
import { releaseById } from '../store/release.ts';
import { readRoutes } from '../store/route.ts';
import { versionById } from '../store/version.ts';
import type { TurnRun } from './turn.ts';

describe('turns of workers', () => {
  let database: Database;
  let engine: BareEngine;
  let deployment: Deployment;
  const runs: TurnRun[] = [];
  before(async () => {
    database = await testDatabase();
    engine = await bareEngine(database, 'eng_a');
  });
  beforeEach(async () => {
    deployment = await aDeployment(database.db);
  });
  after(async () => {
    for (const run of runs) await run.end();
    await engine.close();
    await database.close();
  });

  const active = async () => (await deploymentById(database.db, deployment.id))!.active_version_id;

  /** What a server could do at any time: every switch ends with this code. */
  async function refuseSwitches(code: string): Promise<() => Promise<void>> {
    await sql`create function refuse() returns trigger language plpgsql as
      ${sql.lit(`begin raise exception 'made to fail' using errcode = '${code}'; end`)}`.execute(database.db);
    await sql`create trigger refuse before update of active_version_id on deployments
      for each row execute function refuse()`.execute(database.db);
    return async () => {
      await sql`drop function refuse cascade`.execute(database.db);
    };
  }

  test('a turn that the database does not let end is given back, and taken up again', async () => {
    const version = await aReleasedVersion(engine.ctx, deployment, { kind: 'dynamic', state: 'building' });
    const { id } = await anIntent(engine.ctx, version, 'publish');
    const allow = await refuseSwitches('40P01');
    await engine.worker.handle(id);
    await allow();
    const given_back = (await getOperation(database.db, id))!;
    assert.equal(given_back.state, 'running', JSON.stringify(given_back.failure));
    assert.ok(given_back.lease_expires_at!.getTime() <= Date.now() + 1000, 'free for the next');
    assert.equal((await versionById(database.db, version.id)).state, 'building');
    await engine.worker.handle(id);
    const ended = (await getOperation(database.db, id))!;
    assert.equal(ended.state, 'succeeded', JSON.stringify(ended.failure));
    assert.equal(await active(), version.id);
  });

  /** The instance dies, and its row says so. */
  async function crash(version_id: string): Promise<void> {
    const rows = await unstoppedInstances(database.db, { version_id });
    for (const row of rows) await engine.runtime.running.get(row.id)?.crash();
    const states = async () =>
      (await unstoppedInstances(database.db, { version_id })).map((row) => row.state);
    await until('the rows say it', async () => (await states()).every((state) => state === 'error'));
  }

  /** A version in production, and another on its way. */
  async function aLiveAndANext() {
    const live = await aReleasedVersion(engine.ctx, deployment, { kind: 'dynamic', state: 'building' });
    await engine.worker.handle((await anIntent(engine.ctx, live, 'publish')).id);
    assert.equal(await active(), live.id);
    const next = await aReleasedVersion(engine.ctx, deployment, { kind: 'dynamic', state: 'building' });
    const run = await aRun(engine, (await anIntent(engine.ctx, next, 'publish')).id);
    runs.push(run);
    return { live, next, run, release: await releaseById(database.db, next.release_id!) };
  }

  async function productionIs(live: Version): Promise<void> {
    assert.equal(await active(), live.id);
    assert.equal((await versionById(database.db, live.id)).state, 'ready');
    const { rows } = await readRoutes(database.db);
    const route = rows.find((row) => row.deployment_id === deployment.id)!;
    assert.equal(route.version_id, live.id);
    assert.equal(route.instances.length, 1);
  }

  test('an instance that dies after its health check: no switch, production stays (I2, I3)', async () => {
    const { live, next, run, release } = await aLiveAndANext();
    const healthy = await proveHealthy(run, release);
    assert.ok(healthy.ok);
    await crash(next.id);
    const promoted = await promote(run, healthy.value);
    assert.ok(!promoted.ok, 'not promoted');
    assert.equal(promoted.failure.code, 'HEALTH_UNSTABLE');
    assert.match(promoted.failure.message, /exit code 9/);
    assert.equal((await getOperation(database.db, run.operation.id))!.state, 'running');
    await productionIs(live);
  });

  test('an instance that dies between its last good answer and the record of it: the gate fails', async () => {
    const { live, next, run, release } = await aLiveAndANext();
    const { record } = run;
    let answered = false;
    run.log.note = (line) => {
      if (line.startsWith('health: GET')) answered = true;
    };
    run.record = async (write) => {
      if (answered) await crash(next.id);
      answered = false;
      return record(write);
    };
    const healthy = await proveHealthy(run, release);
    assert.ok(!healthy.ok, 'not proved');
    assert.equal(healthy.failure.code, 'HEALTH_UNSTABLE');
    assert.equal((await versionById(database.db, next.id)).health_passed_at, null);
    assert.deepEqual(await unstoppedInstances(database.db, { version_id: next.id }), []);
    await productionIs(live);
  });

  test('of instances that are too many by now, as many as are wanted go live', async () => {
    await setDesired(3);
    const { live, next, run, release } = await aLiveAndANext();
    const healthy = await proveHealthy(run, release);
    assert.ok(healthy.ok);
    await setDesired(1);
    assert.ok((await promote(run, healthy.value)).ok);
    const roles = async (of: Version) =>
      (await unstoppedInstances(database.db, { version_id: of.id })).map((row) => row.role).sort();
    assert.deepEqual(await roles(next), ['live', 'retired', 'retired']);
    assert.deepEqual(await roles(live), ['warm', 'warm', 'warm']);
  });

  test('a worker that lost its lease ends nothing of its successor, and its own machines end (I5, I8)', async () => {
    const other = await bareEngine(database, 'eng_b', engine.ctx);
    try {
      const version = await aReleasedVersion(engine.ctx, deployment, { kind: 'dynamic', state: 'building' });
      const { id } = await anIntent(engine.ctx, version, 'publish');
      engine.runtime.status = 503;
      other.runtime.status = 503;
      const here = () => [...engine.runtime.running.keys()].filter((one) => !before_it.includes(one));
      const before_it = [...engine.runtime.running.keys()];
      const lost = engine.worker.handle(id);
      await until('it proves an instance', () => here().length === 1);
      const [own] = here();
      const state = async () => (await instanceById(database.db, own!))!.state;
      await until('its row is written', async () => (await state()) === 'starting');
      await database.db
        .updateTable('operations')
        .set({ lease_expires_at: new Date(0) })
        .where('id', '=', id)
        .execute();
      const taken = other.worker.handle(id);
      await until('the next one proves its own', () => other.runtime.running.size === 1);
      await engine.runtime.running.get(own!)!.crash();
      await lost;
      const [there] = [...other.runtime.running.keys()];
      const row = (await instanceById(database.db, there!))!;
      assert.deepEqual([row.role, row.stopped_at], ['gating', null]);
      other.runtime.status = 200;
      await taken;
      assert.equal((await getOperation(database.db, id))!.state, 'succeeded');
      assert.equal(await active(), version.id);
      await engine.supervisor.reconcile();
      await until('the lost one has none', async () => (await state()) === 'stopped');
      assert.deepEqual(here(), []);
    } finally {
      engine.runtime.status = 200;
      await other.close();
    }
  });

  async function setDesired(replicas: number): Promise<void> {
    await database.db.transaction().execute((trx) => setReplicas(trx, deployment.id, replicas));
  }

  test('any other fault of the database fails the version', async () => {
    const version = await aReleasedVersion(engine.ctx, deployment, { kind: 'static', state: 'building' });
    const { id } = await anIntent(engine.ctx, version, 'publish');
    const allow = await refuseSwitches('P0001');
    await engine.worker.handle(id);
    await allow();
    assert.equal((await getOperation(database.db, id))!.failure!.code, 'ENGINE_FAILED');
    assert.equal((await versionById(database.db, version.id)).state, 'failed');
  });
});
