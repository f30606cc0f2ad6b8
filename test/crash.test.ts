/**
 * kill -9 of the engine: at every stage boundary, and at random instants. After a restart a walker over database,
 * objects, processes and folders checks what must hold whatever happened (I2, I7, I8).
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Crashes } from './support/crashes.ts';
import { startKilnProcess } from './support/kiln.ts';

/** A hundred more are in crash-many.system.test.ts. */
const RANDOM_CRASHES = 8;

describe('kill -9', () => {
  let crashes: Crashes;
  before(async () => {
    crashes = await Crashes.open();
    for (const app of ['static', 'dynamic'] as const) {
      const { id } = await crashes.begin(app);
      const first = await crashes.kiln.settled((await crashes.deployment(app)).id, id);
      assert.equal(first.state, 'ready', JSON.stringify(first.failure));
    }
  });
  after(() => crashes.close());

  for (const stage of ['plan', 'build', 'release', 'health', 'promotion'])
    test(`in stage ${stage}: the version ends, the live one serves again`, async () => {
      const app = stage === 'build' ? 'static' : 'dynamic';
      const deployment = await crashes.deployment(app);
      const version = await crashes.begin(app);
      for (;;) {
        const now = await crashes.kiln.version(deployment.id, version.id);
        const over = ['ready', 'failed'].includes(now.state);
        if (now.stage === stage || over) break;
      }
      await crashes.crash();
      const ended = await crashes.kiln.version(deployment.id, version.id);
      assert.equal(ended.state, 'ready', JSON.stringify(ended.failure));
      const until = Date.now() + 15_000;
      while ((await crashes.kiln.get(deployment)).status !== 200) {
        assert.ok(Date.now() < until, 'not served again within 15 s');
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      await crashes.check();
    });

  test('what is taken up again keeps its plan and settings, whatever the engine would choose by now (I1)', async () => {
    const deployment = await crashes.deployment('dynamic');
    const build = { build_command: 'sleep 1', run_command: 'node server.js' };
    const { version } = await crashes.kiln.publish(crashes.apps.dynamic, {
      deployment_id: deployment.id,
      wait: 0,
      ...build,
    });
    while ((await crashes.kiln.version(deployment.id, version.id)).stage !== 'build')
      await new Promise((resolve) => setTimeout(resolve, 10));
    await crashes.kiln.kill();
    crashes.kiln = await startKilnProcess(crashes.data_dir, { grace: '1' });
    const ended = await crashes.kiln.settled(deployment.id, version.id, 30_000);
    assert.equal(ended.state, 'ready', JSON.stringify(ended.failure));
    const log = await crashes.kiln.buildLog(deployment.id, version.build_id);
    assert.match(log, /plan: as an earlier attempt recorded it/);
    assert.match(log, /then for 0 s/);
    assert.doesNotMatch(log, /then for 1 s/);
  });

  test('while an archive comes in: the workspace is as it was, and the half upload is gone', async () => {
    const { kiln, apps, data_dir } = crashes;
    const sandbox_id = await kiln.sandboxFrom(apps.static);
    const upload = http.request(`${kiln.api_url}/api/v1/sandboxes/${sandbox_id}/archive?clear=true`, {
      method: 'PUT',
      headers: { authorization: `Bearer ${kiln.key}`, 'content-type': 'application/x-tar' },
    });
    upload.on('error', () => {});
    const folder = path.join(data_dir, 'sandboxes', sandbox_id);
    upload.write(execFileSync('tar', ['-C', apps.dynamic, '-cf', '-', '.']).subarray(0, 2048));
    while (readdirSync(folder).length === 1) await new Promise((resolve) => setTimeout(resolve, 10));
    await crashes.crash();
    await crashes.check();
    assert.ok(readdirSync(path.join(folder, 'workspace')).includes('index.html'));
  });

  test(`at ${RANDOM_CRASHES} random instants`, { timeout: RANDOM_CRASHES * 30_000 }, () =>
    crashes.atRandomInstants(RANDOM_CRASHES),
  );
});
