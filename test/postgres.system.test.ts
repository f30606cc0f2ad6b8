/** The same store and the same engine on a Postgres server: what one embedded connection cannot show about locks and leases. */
import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { collecting } from '../src/engine/retention.fixture.ts';
import { storeContract } from '../src/store/contract.ts';
import { openDatabase } from '../src/store/db.ts';
import { nodeServer, staticSite } from './support/apps.ts';
import { tempDir } from './support/folders.ts';
import { startKilnProcess } from './support/kiln.ts';
import { type Postgres, postgresBin, startPostgres } from './support/postgres.ts';
import { walk } from './support/walker.ts';

const bin = postgresBin();
const skip = bin === null ? 'no Postgres server is installed (scripts/system-deps.sh installs it)' : false;

describe('on a Postgres server', { skip }, () => {
  let postgres: Postgres;
  before(async () => {
    postgres = await startPostgres(bin!);
  });
  after(() => postgres.stop());

  storeContract('Postgres', async () => openDatabase({ url: await postgres.fresh() }));

  collecting('Postgres', async () => openDatabase({ url: await postgres.fresh() }));

  test('publish, roll back, kill -9 in the middle, recover', async () => {
    const url = await postgres.fresh();
    const data_dir = await tempDir('pg');
    let kiln = await startKilnProcess(data_dir, { database: url });
    try {
      const one = await kiln.publish(await staticSite('one'), { name: 'site' });
      const id = one.deployment.id;
      await kiln.publish(await staticSite('two'), { deployment_id: id });
      await kiln.ask('POST', `/deployments/${id}/rollback`, {});
      assert.match((await kiln.get(one.deployment)).body, /one/);
      const server = await kiln.publish(await nodeServer('up'), { name: 'server' });
      const build = { build_command: 'sleep 2', run_command: 'node server.js', wait: 0 };
      const pending = await kiln.publish(await nodeServer('up again'), {
        deployment_id: server.deployment.id,
        ...build,
      });
      while ((await kiln.version(server.deployment.id, pending.version.id)).stage !== 'build')
        await new Promise((resolve) => setTimeout(resolve, 30));
      await kiln.kill();
      const died = Date.now();
      kiln = await startKilnProcess(data_dir, { database: url });
      const ended = await kiln.settled(server.deployment.id, pending.version.id);
      assert.equal(ended.state, 'ready', JSON.stringify(ended.failure));
      assert.ok(Date.now() - died < 15_000, 'recovery within 15 s');
      assert.equal((await kiln.get(server.deployment)).body, 'up again');
      assert.equal(await kiln.stop(), 0);
      assert.deepEqual(await walk(data_dir, url), []);
    } finally {
      await kiln.kill();
      await rm(data_dir, { recursive: true, force: true });
    }
  });
});
