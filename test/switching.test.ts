/** Promotion, rollback, races and cancels: which version is in force, and that no request is lost on the way (I4, I5, I6, I9). */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { nodeServer, staticSite, writeApp } from './support/apps.ts';
import type { Json } from './support/client.ts';
import { hammer } from './support/hammer.ts';
import { type Kiln, startKiln } from './support/kiln.ts';

describe('switching', () => {
  let kiln: Kiln;
  before(async () => {
    kiln = await startKiln();
  });
  after(() => kiln.close());

  const current = async (deployment: Json) =>
    (await kiln.ask('GET', `/deployments/${deployment.id}`)).active_version_id;

  test('no request is lost or mixed while versions switch under load', async () => {
    const first = await kiln.publish(await nodeServer('v1'));
    const visitor = hammer(kiln, first.deployment);
    const id = first.deployment.id;
    for (const text of ['v2', 'v3']) await kiln.publish(await nodeServer(text), { deployment_id: id });
    await kiln.ask('POST', `/deployments/${id}/rollback`, {});
    await kiln.ask('POST', `/deployments/${id}/rollback`, { version_id: first.version.id });
    await visitor.stop();
    assert.deepEqual(visitor.failures, []);
    assert.deepEqual(visitor.bodies, ['v1', 'v2', 'v3']);
    assert.equal((await kiln.get(first.deployment)).body, 'v1');
    assert.ok(visitor.requests > 100, `only ${visitor.requests} requests`);
  });

  test('a request in flight during the switch gets its whole answer from the old version', async () => {
    const slow = `const parts = ['a','b','c','d','e']; const next = () => { const p = parts.shift(); if (!p) return res.end(); res.write(p); setTimeout(next, 150); }; if (req.url === '/slow') return next();`;
    const first = await kiln.publish(await nodeServer('old', slow));
    const in_flight = kiln.get(first.deployment, '/slow');
    await kiln.publish(await nodeServer('new'), { deployment_id: first.deployment.id });
    const answer = await in_flight;
    assert.equal(answer.body, 'abcde');
    assert.equal((await kiln.get(first.deployment)).body, 'new');
  });

  test('rollback of a static site; the previously active one is the default', async () => {
    const one = await kiln.publish(await staticSite('one'));
    const id = one.deployment.id;
    const two = await kiln.publish(await staticSite('two'), { deployment_id: id });
    const back = await kiln.ask('POST', `/deployments/${id}/rollback`, {});
    assert.equal(back.active_version_id, one.version.id);
    assert.match((await kiln.get(one.deployment)).body, /one/);
    assert.equal((await kiln.version(id, two.version.id)).state, 'archived');
    assert.equal((await kiln.version(id, one.version.id)).state, 'ready');
    const release_id = two.version.release_id ?? (await kiln.ask('GET', `/deployments/${id}/releases`))[0].id;
    const forth = await kiln.ask('POST', `/deployments/${id}/releases/${release_id}/promote`, {});
    assert.equal(forth.active_version_id, two.version.id);
  });

  test('rollback to a stopped version starts and proves it first; production stays meanwhile', async () => {
    const old = await startKiln({ 'warm-time': '0' });
    try {
      const one = await old.publish(await nodeServer('one'));
      const id = one.deployment.id;
      await old.publish(await nodeServer('two'), { deployment_id: id });
      for (;;) {
        const rows = await old.ask('GET', `/deployments/${id}/runtime-instances`);
        if (rows.filter((row: Json) => row.state === 'healthy').length === 1) break;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      const visitor = hammer(old, one.deployment);
      const back = await old.ask('POST', `/deployments/${id}/rollback`, {});
      assert.equal(back.active_version_id, one.version.id);
      assert.equal((await old.get(one.deployment)).body, 'one');
      await visitor.stop();
      assert.deepEqual(visitor.failures, []);
    } finally {
      await old.close();
    }
  });

  test('a collected or broken artifact: refused, production unchanged', async () => {
    const one = await kiln.publish(await staticSite('whole'));
    const id = one.deployment.id;
    const two = await kiln.publish(await staticSite('second'), { deployment_id: id });
    const { artifact_sha256 } = await kiln.version(id, one.version.id);
    await rm(path.join(kiln.data_dir, 'objects', 'releases', `${artifact_sha256}.tar`));
    const { status, json } = await kiln.call('POST', `/deployments/${id}/rollback`, {
      version_id: one.version.id,
    });
    assert.equal(status, 410);
    assert.equal(json.error.code, 'ARTIFACT_GONE');
    assert.equal(await current(one.deployment), two.version.id);
  });

  test('foreign and unready targets', async () => {
    const one = await kiln.publish(await staticSite('a'));
    const other = await kiln.publish(await staticSite('b'));
    const foreign = await kiln.call('POST', `/deployments/${one.deployment.id}/rollback`, {
      version_id: other.version.id,
    });
    assert.equal(foreign.status, 404);
    const none = await kiln.call('POST', `/deployments/${one.deployment.id}/rollback`, {});
    assert.equal(none.status, 409);
    assert.equal(none.json.error.code, 'NO_PREVIOUS_VERSION');
  });

  test('50 publishes at once end in order, all of them ready', async () => {
    const deployment = await kiln.deployment(`race-${randomUUID().slice(0, 6)}`);
    const sandbox_id = await kiln.sandboxFrom(await staticSite('race'));
    const accepted = await Promise.all(
      Array.from({ length: 50 }, () =>
        kiln.publish(null, { sandbox_id, deployment_id: deployment.id, wait: 0 }),
      ),
    );
    const versions = await Promise.all(
      accepted.map(({ version }) => kiln.settled(deployment.id, version.id)),
    );
    versions.sort((a, b) => a.version_number - b.version_number);
    assert.deepEqual(
      versions.map((v) => v.version_number),
      Array.from({ length: 50 }, (_, n) => n + 1),
    );
    for (const version of versions) assert.ok(['ready', 'archived'].includes(version.state), version.state);
    const promoted = versions.map((v) => Date.parse(v.promoted_at));
    assert.deepEqual(
      promoted,
      promoted.toSorted((a, b) => a - b),
      'one after the other, in order',
    );
    assert.equal(await current(deployment), versions.at(-1).id);
  });

  test('100 requests with one idempotency key make one version', async () => {
    const deployment = await kiln.deployment(`once-${randomUUID().slice(0, 6)}`);
    const sandbox_id = await kiln.sandboxFrom(await staticSite('once'));
    const key = randomUUID();
    const all = await Promise.all(
      Array.from({ length: 100 }, () =>
        kiln.call(
          'POST',
          `/deployments/${deployment.id}/publish`,
          { source_sandbox_id: sandbox_id },
          { 'idempotency-key': key },
        ),
      ),
    );
    const ids = new Set(all.map(({ json }) => json.data?.version?.id));
    assert.equal(ids.size, 1, JSON.stringify([...ids]));
    assert.equal(all.filter(({ headers }) => headers.get('idempotency-replayed') === 'true').length, 99);
    assert.equal((await kiln.ask('GET', `/deployments/${deployment.id}/versions`)).length, 1);
    const other = await kiln.call(
      'POST',
      `/deployments/${deployment.id}/publish`,
      { source_sandbox_id: 'another' },
      { 'idempotency-key': key },
    );
    assert.equal(other.status, 409);
    await kiln.settled(deployment.id, [...ids][0]);
  });

  test('a rollback acts at once while a publish runs, and that publish cannot undo it (I4)', async () => {
    const one = await kiln.publish(await staticSite('one'));
    const id = one.deployment.id;
    const two = await kiln.publish(await staticSite('two'), { deployment_id: id });
    const slow = await kiln.publish(await staticSite('three'), {
      deployment_id: id,
      wait: 0,
      build_command: 'sleep 2 && mkdir -p out && cp index.html out/',
      output_path: 'out',
    });
    const back = await kiln.ask('POST', `/deployments/${id}/rollback`, { version_id: one.version.id });
    assert.equal(back.active_version_id, one.version.id);
    const three = await kiln.settled(id, slow.version.id);
    assert.equal(three.state, 'ready');
    assert.equal(three.superseded, true);
    assert.equal(await current(one.deployment), one.version.id);
    assert.match((await kiln.get(one.deployment)).body, /one/);
    assert.notEqual(two.version.id, one.version.id);
  });

  test('cancel: a running build ends within 5 s, a queued publish at once', async () => {
    const deployment = await kiln.deployment(`cancel-${randomUUID().slice(0, 6)}`);
    const sandbox_id = await kiln.sandboxFrom(await staticSite('x'));
    const body = {
      sandbox_id,
      deployment_id: deployment.id,
      wait: 0,
      build_command: 'sleep 61 & sleep 61',
      output_path: '.',
    };
    const running = await kiln.publish(null, body);
    const queued = await kiln.publish(null, body);
    while ((await kiln.version(deployment.id, running.version.id)).stage !== 'build')
      await new Promise((r) => setTimeout(r, 30));
    for (const { version } of [queued, running]) {
      const started = Date.now();
      const { status } = await kiln.call(
        'POST',
        `/deployments/${deployment.id}/versions/${version.id}/cancel`,
        {},
      );
      assert.equal(status, 200);
      const ended = await kiln.settled(deployment.id, version.id, 5000);
      assert.equal(ended.state, 'failed');
      assert.equal(ended.failure.code, 'CANCELLED');
      assert.ok(Date.now() - started < 5000);
    }
  });

  test('retry builds the stored snapshot again, not the workspace', async () => {
    const dir = await writeApp({ 'index.html': 'first', 'ok.txt': '' });
    const sandbox_id = await kiln.sandboxFrom(dir);
    const command = { build_command: 'test -e /tmp/never-there || exit 1', output_path: '.' };
    const { version, deployment } = await kiln.publish(null, { sandbox_id, ...command });
    assert.equal(version.state, 'failed');
    await kiln.ask('DELETE', `/sandboxes/${sandbox_id}`);
    const again = await kiln.ask('POST', `/deployments/${deployment.id}/versions/${version.id}/retry`, {});
    const retried = await kiln.settled(deployment.id, again.version.id);
    assert.equal(retried.source_sha256, version.source_sha256);
    assert.equal(retried.state, 'failed');
  });

  test('a removed deployment serves nothing, and its instances end', async () => {
    const { deployment } = await kiln.publish(await nodeServer('bye'));
    await kiln.ask('DELETE', `/deployments/${deployment.id}`);
    for (let tries = 0; (await kiln.get(deployment)).status !== 404; tries++) {
      assert.ok(tries < 100);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    assert.equal((await kiln.call('GET', `/deployments/${deployment.id}`)).status, 404);
  });
});
