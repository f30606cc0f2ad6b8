import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { aDeployment, aVersion, newId } from '../../test/support/rows.ts';
import type { Deployment } from '../domain/deployment.ts';
import type { Plan } from '../domain/plan.ts';
import { testDatabase } from './database.fixture.ts';
import type { Database } from './db.ts';
import {
  markDeploymentDeleted,
  setReplicas,
  switchActiveVersion,
  takeSeq,
  updateDeployment,
} from './deployment.ts';
import { insertDomain, updateDomain } from './domain.ts';
import { insertInstance, setInstanceRole, setInstanceState } from './instance.ts';
import { insertRelease } from './release.ts';
import { readRoutes, routeReader } from './route.ts';
import { transact } from './transact.ts';
import { recordPlan, recordRelease } from './version.ts';

const NOBODY = { external_workspace_id: null, external_user_id: null, external_project_id: null };

describe('the live table, read again and again', () => {
  let database: Database;
  before(async () => {
    database = await testDatabase();
  });
  after(() => database.close());

  /** A version with a release becomes active. */
  function publish(deployment: Deployment, spa_fallback: string) {
    return transact(database.db, async (trx) => {
      const { tenant_id, workspace_id, project_id } = deployment;
      const seq = await takeSeq(trx, deployment.id);
      const version = await aVersion(trx, deployment, seq);
      const plan = { mode: 'static', spa_fallback } as unknown as Plan;
      await recordPlan(trx, version.id, { plan, kind: 'dynamic', run_settings: {} as never });
      const release = await insertRelease(trx, {
        ...{ id: newId('rel'), tenant_id, workspace_id, project_id, ...NOBODY, deployment_id: deployment.id },
        ...{
          version_id: version.id,
          kind: 'rootfs',
          sha256: version.id,
          object_key: `releases/${version.id}`,
        },
        ...{ size_bytes: 1, manifest: { total_bytes: 1, entrypoint: null }, start_command: null, port: null },
        ...{ reuse_key: version.id, ready_at: new Date() },
      });
      await recordRelease(trx, version.id, release.id, false);
      await switchActiveVersion(trx, { deployment_id: deployment.id, version_id: version.id, seq });
      return { version, release };
    });
  }

  test('is what is read afresh, after every kind of change', async () => {
    const { db } = database;
    const read = routeReader(db);
    const same = async (what: string) => assert.deepEqual(await read(), await readRoutes(db), what);
    await same('nothing');
    const [shop, blog] = [await aDeployment(db, 'shop'), await aDeployment(db, 'blog')];
    await publish(blog, 'b.html');
    const first = await publish(shop, 'one.html');
    await same('published');
    const started = await transact(db, (trx) =>
      insertInstance(trx, {
        ...{
          id: newId('ins'),
          tenant_id: shop.tenant_id,
          deployment_id: shop.id,
          version_id: first.version.id,
        },
        ...{ release_id: first.release.id, operation_id: null, engine_id: null, replica: 0, role: 'gating' },
      }),
    );
    await transact(db, async (trx) => {
      await setInstanceRole(trx, started, 'live');
      await setInstanceState(trx, started.id, 'healthy', { host: '127.0.0.1', port: 4000 });
    });
    await same('an instance');
    assert.equal((await read()).rows.find((row) => row.slug === 'shop')?.instances[0]?.port, 4000);
    const domain = await transact(db, (trx) =>
      insertDomain(trx, {
        ...{ id: newId('dom'), tenant_id: shop.tenant_id, workspace_id: shop.workspace_id },
        ...{ project_id: shop.project_id, ...NOBODY, deployment_id: shop.id, domain: 'shop.example' },
        ...{ redirect_policy: 'apex_to_www', verification_token: 'x' },
      }),
    );
    await transact(db, (trx) => updateDomain(trx, domain!, { state: 'active', verified_at: new Date() }));
    await same('a domain');
    assert.deepEqual((await read()).rows.find((row) => row.slug === 'shop')?.hosts, ['www.shop.example']);
    const second = await publish(shop, 'two.html');
    await same('another version');
    const shown = (await read()).rows.find((row) => row.slug === 'shop')!;
    assert.deepEqual([shown.version_id, shown.plan?.spa_fallback], [second.version.id, 'two.html']);
    await transact(db, (trx) => updateDeployment(trx, shop.id, { slug: 'store' }));
    await same('another name');
    await transact(db, (trx) => setReplicas(trx, shop.id, 0));
    await same('stopped');
    await transact(db, (trx) => markDeploymentDeleted(trx, shop.id));
    await same('removed');
  });

  test('is not read again while its generation stays', async () => {
    const read = routeReader(database.db);
    const before = await read();
    assert.equal(await read(), before);
    const deployment = await aDeployment(database.db);
    await publish(deployment, 'x.html');
    assert.notEqual(await read(), before);
  });
});
