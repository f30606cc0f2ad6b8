/** Promotes and rollbacks as they are accepted. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { anIntent, aReleasedVersion, type BareEngine, bareEngine } from '../../test/support/bare-engine.ts';
import { aDeployment } from '../../test/support/rows.ts';
import { KilnError } from '../domain/errors.ts';
import type { Version } from '../domain/version.ts';
import { testDatabase } from '../store/database.fixture.ts';
import type { Database } from '../store/db.ts';
import { countUnfinished } from '../store/operation.ts';
import { previousVersion } from '../store/version.ts';
import { acceptSwitch } from './promote.ts';
import { KINDS, type Queue } from './queue.ts';

describe('accepting a switch', () => {
  let database: Database;
  let engine: BareEngine;
  before(async () => {
    database = await testDatabase();
    engine = await bareEngine(database, 'eng_a');
  });
  after(async () => {
    await engine.close();
    await database.close();
  });

  const nobody = { send: async () => {} } as unknown as Queue;
  const accept = (version: Version) =>
    acceptSwitch(engine.ctx, nobody, engine.supervisor, version, { kind: 'rollback', idempotency: null });
  const isTooMany = (error: unknown) => error instanceof KilnError && error.code === 'TOO_MANY';

  test('the version before is the one that was active before, whatever the clock said then', async () => {
    const deployment = await aDeployment(database.db);
    const site = () => aReleasedVersion(engine.ctx, deployment, { kind: 'static', state: 'ready' });
    const [first, second, third] = [await site(), await site(), await site()];
    for (const version of [first, second, third]) await accept(version);
    const tomorrow = new Date(Date.now() + 24 * 3600 * 1000);
    await database.db
      .updateTable('versions')
      .set({ archived_at: tomorrow })
      .where('id', '=', first.id)
      .execute();
    const before = async (active: Version) =>
      (await previousVersion(database.db, deployment.id, active.id))?.version_number;
    assert.equal(await before(third), second.version_number);
    await accept(second);
    assert.equal(await before(second), third.version_number);
  });

  test('those that must start a stopped version first have a limit; one that switches at once does not', async () => {
    const deployment = await aDeployment(database.db);
    const stopped = await aReleasedVersion(engine.ctx, deployment, { kind: 'dynamic', state: 'ready' });
    const site = await aReleasedVersion(engine.ctx, deployment, { kind: 'static', state: 'ready' });
    const building = await aReleasedVersion(engine.ctx, deployment, { kind: 'static', state: 'building' });
    engine.ctx.bounds = { ...engine.ctx.bounds, queued_operations: 3 };
    // Publishes that wait are no reason to refuse a rollback.
    for (let n = 0; n < 3; n++) await anIntent(engine.ctx, building, 'publish');
    const answers = await Promise.allSettled(Array.from({ length: 5 }, () => accept(stopped)));
    const refused = answers.filter((answer) => answer.status === 'rejected');
    assert.equal(refused.length, 2);
    for (const { reason } of refused) assert.ok(isTooMany(reason), String(reason));
    assert.equal(await countUnfinished(database.db, deployment.id, KINDS.switch), 3);

    assert.equal((await accept(site)).operation.state, 'succeeded');
    await assert.rejects(accept(stopped), isTooMany);
  });
});
