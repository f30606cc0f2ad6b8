/** An object store that fails in every way at every step: the caller is told, production does not notice, the next publish works. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { type Fault, faultyObjectStore } from '../src/store/objects/faulty.ts';
import { nodeServer, staticSite } from './support/apps.ts';
import type { Json } from './support/client.ts';
import { type Hammer, hammer } from './support/hammer.ts';
import { type Kiln, startKiln } from './support/kiln.ts';

describe('a failing object store', () => {
  const faults: Fault[] = [];
  let kiln: Kiln;
  let live: Json;
  let visitor: Hammer;
  before(async () => {
    kiln = await startKiln({}, undefined, { wrapObjects: (store) => faultyObjectStore(store, faults) });
    live = (await kiln.publish(await nodeServer('production'))).deployment;
    visitor = hammer(kiln, live);
  });
  after(async () => {
    await visitor.stop();
    await kiln.close();
  });

  const count = async () => (await kiln.ask('GET', `/deployments/${live.id}/versions?limit=200`)).length;

  /** With the fault armed for every call. Null when the publish was refused without a version. */
  async function publishWith(fault: Omit<Fault, 'nth'>, dir: string): Promise<Json | null> {
    const sandbox_id = await kiln.sandboxFrom(dir);
    const before = await count();
    faults.push({ ...fault, nth: 'every' });
    try {
      const { status, json } = await kiln.call('POST', `/deployments/${live.id}/publish?wait=60`, {
        source_sandbox_id: sandbox_id,
      });
      if (status >= 500) {
        assert.equal(json.error.code, 'STORAGE_FAILED', JSON.stringify(json));
        assert.equal(await count(), before, 'no snapshot, no version row (I7)');
        return null;
      }
      return json.data.version;
    } finally {
      faults.length = 0;
    }
  }

  for (const kind of ['fail', 'no_space', 'lost_answer'] as const)
    test(`storing the snapshot: ${kind}`, async () => {
      assert.equal(
        await publishWith({ operation: 'putFile', kind }, await staticSite(`snapshot ${kind}`)),
        null,
      );
    });

  for (const kind of ['fail', 'short_read', 'truncated'] as const)
    test(`reading the snapshot: ${kind}`, async () => {
      const version = await publishWith({ operation: 'get', kind }, await staticSite(`read ${kind}`));
      assert.equal(version.state, 'failed');
      // Cut short whenever it is looked at, it is as good as damaged.
      const code = kind === 'truncated' ? 'ARTIFACT_CORRUPT' : 'STORAGE_FAILED';
      assert.equal(version.failure.code, code, JSON.stringify(version.failure));
      assert.equal(version.failure.retryable, true);
      assert.equal(version.failure.fault, 'engine');
    });

  for (const kind of ['fail', 'no_space'] as const)
    test(`storing the release: ${kind}`, async () => {
      const version = await publishWith({ operation: 'put', kind }, await staticSite(`release ${kind}`));
      assert.equal(version.state, 'failed');
      assert.equal(version.failure.code, 'STORAGE_FAILED', JSON.stringify(version.failure));
    });

  test('a failed one can be retried once storage is back, and production never noticed', async () => {
    const failed = await publishWith({ operation: 'get', kind: 'fail' }, await nodeServer('production'));
    const again = await kiln.ask('POST', `/deployments/${live.id}/versions/${failed.id}/retry`, {});
    const version = await kiln.settled(live.id, again.version.id);
    assert.equal(version.state, 'ready', JSON.stringify(version.failure));
    await visitor.stop();
    assert.deepEqual(visitor.failures, []);
    assert.deepEqual(visitor.bodies, ['production']);
  });
});
