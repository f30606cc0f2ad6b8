/** Turns of workers: what they write when instances die under them, the database refuses, or another has taken over. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { sql } from 'kysely';
import { anIntent, aReleasedVersion, type BareEngine, bareEngine } from '../../test/support/bare-engine.ts';
import { aDeployment } from '../../test/support/rows.ts';
import type { Deployment } from '../domain/deployment.ts';
import { type Database, openDatabase } from '../store/db.ts';
import { deploymentById } from '../store/deployment.ts';
import { getOperation } from '../store/operation.ts';
import { versionById } from '../store/version.ts';

describe('turns of workers', () => {
  let database: Database;
  let engine: BareEngine;
  let deployment: Deployment;
  before(async () => {
    database = await openDatabase({ dir: 'memory://' });
    engine = await bareEngine(database, 'eng_a');
  });
  beforeEach(async () => {
    deployment = await aDeployment(database.db);
  });
  after(async () => {
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
