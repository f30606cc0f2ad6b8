/** Running servers: restarted when they die, given up when they keep dying, back after the engine restarts. */
import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { nodeServer } from './support/apps.ts';
import type { Json } from './support/client.ts';
import { tempDir } from './support/folders.ts';
import { type Kiln, startKiln, startKilnProcess } from './support/kiln.ts';

/** `/die` ends the app; it says when it was started. */
const mortal = (text: string) =>
  nodeServer(
    text,
    "if (req.url === '/die') { res.end('bye'); setTimeout(() => process.exit(9), 10); return; }",
  );

async function until(what: string, within_ms: number, holds: () => Promise<boolean>): Promise<void> {
  for (const end = Date.now() + within_ms; !(await holds()); ) {
    if (Date.now() > end) assert.fail(`not within ${within_ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

describe('instances', () => {
  let kiln: Kiln;
  before(async () => {
    kiln = await startKiln();
  });
  after(() => kiln.close());

  const instances = (deployment: Json): Promise<Json[]> =>
    kiln.ask('GET', `/deployments/${deployment.id}/runtime-instances`);

  test('one that dies is started again, and says why it died', async () => {
    const { deployment } = await kiln.publish(await mortal('alive'));
    assert.equal((await kiln.get(deployment, '/die')).body, 'bye');
    await until('it was started again', 10_000, async () => {
      const [row] = await instances(deployment);
      return row.restart_count === 1 && row.state === 'healthy';
    });
    assert.equal((await kiln.get(deployment)).body, 'alive');
    const [row] = await instances(deployment);
    const { logs } = await kiln.ask('GET', `/deployments/${deployment.id}/runtime-instances/${row.id}/logs`);
    assert.match(logs, /exit code 9/);
  });

  test('with two replicas the other one serves meanwhile', async () => {
    const { deployment } = await kiln.publish(await mortal('two'));
    await kiln.ask('POST', `/deployments/${deployment.id}/scale`, { instances: 2 });
    await until(
      'both are healthy',
      10_000,
      async () => (await instances(deployment)).filter((i) => i.state === 'healthy').length === 2,
    );
    await kiln.get(deployment, '/die');
    // The dead one may still be in the table for the moment until its end is noticed: the edge then asks the other.
    for (let n = 0; n < 30; n++) assert.equal((await kiln.get(deployment)).status, 200);
  });

  test('a warm one that dies stays dead; rolling back to it starts and proves it anew', async () => {
    const one = await kiln.publish(await mortal('one'));
    const [warm] = await instances(one.deployment);
    await kiln.publish(await mortal('two'), { deployment_id: one.deployment.id });
    await fetch(`http://127.0.0.1:${warm.port}/die`);
    await until('it is stopped', 10_000, async () => {
      const rows = await instances(one.deployment);
      return rows.some((row) => row.id === warm.id && row.state === 'stopped');
    });
    assert.equal((await kiln.get(one.deployment)).body, 'two');
    const back = await kiln.ask('POST', `/deployments/${one.deployment.id}/rollback`, {});
    assert.equal(back.active_version_id, one.version.id);
    assert.equal((await kiln.get(one.deployment)).body, 'one');
  });
});

describe('instances and the end of an engine', () => {
  test('after a stop, and after kill -9, live servers are back; nothing else is', async () => {
    const data_dir = await tempDir('again');
    let kiln = await startKilnProcess(data_dir);
    try {
      const one = await kiln.publish(await mortal('first'), { name: 'again' });
      await kiln.publish(await mortal('second'), { deployment_id: one.deployment.id });
      for (const end of ['stop', 'kill'] as const) {
        await kiln[end]();
        kiln = await startKilnProcess(data_dir);
        await until(
          `it serves again after ${end}`,
          15_000,
          async () => (await kiln.get(one.deployment)).body === 'second',
        );
        const rows = await kiln.ask('GET', `/deployments/${one.deployment.id}/runtime-instances`);
        assert.equal(rows.filter((row: Json) => row.state === 'healthy').length, 1);
      }
    } finally {
      await kiln.kill();
      await rm(data_dir, { recursive: true, force: true });
    }
  });

  test('a second engine on the same data folder is refused, and told who has it', async () => {
    const kiln = await startKiln();
    try {
      await assert.rejects(startKiln({}, kiln.data_dir), new RegExp(`process id ${process.pid}`));
    } finally {
      await kiln.close();
    }
  });
});
