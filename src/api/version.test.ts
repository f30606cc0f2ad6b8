import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { insertInstance, setInstanceRole, setInstanceState } from '../store/instance.ts';
import {
  type Json,
  newId,
  openTestApi,
  readFrames,
  sandboxAndDeployment,
  type TestApi,
} from './testing/api.ts';
import { logLines, type Publishing, publishing } from './testing/publishing.ts';

let api: TestApi;
let sandbox: Json;
let make: Publishing['make'];
let publish: Publishing['publish'];
let live: Publishing['live'];
before(async () => {
  api = await openTestApi();
  sandbox = (await sandboxAndDeployment(api)).sandbox;
  ({ make, publish, live } = publishing(api, sandbox.id));
});
after(() => api.close());

describe('publish', () => {
  test('answers 202 with the whole envelope and passes on what was asked, and only that', async () => {
    const { id } = await make();
    const answer = await publish(id, {
      kind: 'dynamic',
      output_path: '/workspace/app',
      start_command: 'node s.js',
      port: 4000,
      health_check_path: '/h',
      environment: 'staging',
      grace_sec: 2,
      env: { A: '1' },
      reuse: false,
      include_git: true,
      external_user_id: 'ada',
      metadata: { who: 'me' },
    });
    assert.equal(answer.status, 202);
    const { data } = answer.body;
    assert.equal(answer.body.deployment_product, 'miosa_deploy');
    assert.deepEqual(
      [data.version.state, data.promoted, data.promotion_pending, data.release],
      ['created', false, true, null],
    );
    assert.deepEqual(data.secrets_left_out, ['.env']);
    assert.equal(data.services[0].type, 'web');
    assert.ok(!('artifact_manifest' in data.version));
    const input = api.engine.inputs.at(-1)!;
    assert.deepEqual(input.overrides, {
      kind: 'dynamic',
      output_path: 'app',
      run_command: 'node s.js',
      port: 4000,
      health_check_path: '/h',
    });
    assert.deepEqual(
      [input.environment, input.grace_ms, input.promote, input.reuse],
      ['staging', 2000, true, false],
    );
    assert.equal(input.attribution.external_user_id, 'ada');
    await publish(id);
    assert.deepEqual(api.engine.inputs.at(-1)!.overrides, {});
  });

  test('wait holds the answer until the outcome is known, by query or Prefer', async () => {
    const { id } = await make();
    const waiting = publish(id, {}, { prefer: 'respond-async, wait=20' });
    let version: Json;
    while (!version) {
      [version] = (await api.ask('GET', `/deployments/${id}/versions`)).body.data;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    await api.engine.finish(version.id);
    const answer = await waiting;
    assert.equal(answer.status, 200);
    assert.deepEqual([answer.body.data.version.state, answer.body.data.promoted], ['ready', true]);
    assert.equal(answer.body.data.release.sha256, 'b'.repeat(64));
    const short = await api.ask('POST', `/deployments/${id}/publish?wait=0.05`, {
      body: { source_sandbox_id: sandbox.id },
    });
    assert.equal(short.status, 202);
    assert.equal((await api.ask('POST', `/deployments/${id}/publish?wait=301`, { body: {} })).status, 422);
  });

  test('refuses: no sandbox, a foreign one, wrong fields, what does not exist here', async () => {
    const { id } = await make();
    assert.deepEqual(
      Object.keys((await api.ask('POST', `/deployments/${id}/publish`, { body: {} })).body.errors),
      ['source_sandbox_id'],
    );
    assert.equal((await publish(id, { source_sandbox_id: 'sbx_no' })).status, 404);
    const foreign = (await api.ask('POST', '/sandboxes', { body: {}, key: api.foreign_key })).body;
    assert.equal((await publish(id, { source_sandbox_id: foreign.id })).status, 404);
    assert.equal((await publish(id, { output_path: '/etc' })).status, 422);
    assert.equal((await publish(id, { port: '80' })).status, 422);
    for (const body of [{ data_services: [{}] }, { deployment_type: 'docker-deploy' }, { database: {} }])
      assert.equal((await publish(id, body)).body.code, 'UNSUPPORTED');
    assert.equal((await publish('dep_no')).status, 404);
  });

  test('a failing snapshot is a 5xx and there is no version', async () => {
    const { id } = await make();
    api.engine.before_publish = async () => {
      throw new (await import('../domain/errors.ts')).KilnError(
        'SNAPSHOT_FAILED',
        '/workspace/x cannot be read.',
      );
    };
    const answer = await publish(id, {}, { 'idempotency-key': 'snap' });
    api.engine.before_publish = async () => {};
    assert.deepEqual([answer.status, answer.body.code], [500, 'SNAPSHOT_FAILED']);
    assert.equal((await api.ask('GET', `/deployments/${id}/versions`)).body.data.length, 0);
    assert.equal(
      (await publish(id, {}, { 'idempotency-key': 'snap' })).status,
      202,
      'the same key may try again',
    );
  });

  test('the bridge: by name made once and used again, by id, by the name of the sandbox', async () => {
    const bridge = (verb: string, body: object) =>
      api.ask('POST', `/sandboxes/${sandbox.id}/${verb}`, { body });
    const one = await bridge('deploy', { name: 'Bridged', type: 'server', mode: 'static' });
    assert.equal(one.status, 202);
    assert.equal(one.body.data.deployment.slug, 'bridged');
    assert.equal(api.engine.inputs.at(-1)!.overrides.kind, 'dynamic');
    const two = await bridge('publish', { name: 'bridged', path: '/workspace/dist', database: false });
    assert.equal(two.body.data.deployment_id, one.body.data.deployment_id);
    assert.equal(two.body.data.version.version_number, 2);
    assert.equal(api.engine.inputs.at(-1)!.overrides.output_path, 'dist');
    const three = await bridge('publish', { deployment_id: one.body.data.deployment_id });
    assert.equal(three.body.data.version.version_number, 3);
    assert.equal((await bridge('publish', {})).body.data.deployment.name, sandbox.name);
    assert.equal((await bridge('publish', { deployment_id: 'dep_no' })).status, 404);
    const both = await Promise.all([1, 2, 3].map(() => bridge('deploy', { name: 'At once' })));
    assert.equal(new Set(both.map((answer) => answer.body.data.deployment_id)).size, 1);
  });

  test('retry and redeploy start from the stored snapshot; cancel ends', async () => {
    const { id } = await make();
    assert.equal((await api.ask('POST', `/deployments/${id}/redeploy`)).body.code, 'CONFLICT');
    const { version_id } = await live(id);
    const again = await api.ask('POST', `/deployments/${id}/versions/${version_id}/retry`, {
      body: { promote: false },
    });
    assert.equal(again.status, 202);
    assert.deepEqual(
      [again.body.data.version.retry_of, again.body.data.promotion_pending],
      [version_id, false],
    );
    const cancelled = await api.ask(
      'POST',
      `/deployments/${id}/versions/${again.body.data.version_id}/cancel`,
    );
    assert.equal(cancelled.body.data.state, 'cancelled');
    const redeployed = await api.ask('POST', `/deployments/${id}/redeploy`);
    assert.equal(redeployed.body.data.state, 'building');
    assert.equal(redeployed.body.data.id, redeployed.body.data.build_id);
    const { operation_id } = redeployed.body.data;
    assert.equal((await api.ask('GET', `/operations/${operation_id}`)).body.data.state, 'queued');
    assert.equal((await api.ask('GET', `/operations/${operation_id}`, { key: api.foreign_key })).status, 404);
    assert.equal((await api.ask('POST', `/operations/${operation_id}/cancel`)).body.data.state, 'cancelled');
    assert.equal((await api.ask('POST', `/operations/${operation_id}/cancel`)).body.data.state, 'cancelled');
    assert.equal((await api.ask('GET', `/operations/${operation_id}?wait=5`)).body.data.state, 'cancelled');
  });
});

describe('history', () => {
  test('versions and releases, by every path, also when the publish failed', async () => {
    const { id } = await make();
    const first = await live(id, { external_user_id: 'ada' });
    const failed = (await publish(id)).body.data;
    await api.engine.finish(failed.version_id, 'failed');
    const list = await api.ask('GET', `/deployments/${id}/versions`);
    assert.deepEqual(
      list.body.data.map((v: Json) => [v.version_number, v.state]),
      [
        [2, 'failed'],
        [1, 'ready'],
      ],
    );
    assert.equal(list.body.data[0].failure.code, 'BUILD_FAILED');
    assert.equal(
      (await api.ask('GET', `/deployments/${id}/versions?state=ready&limit=1`)).body.data.length,
      1,
    );
    assert.equal(
      (await api.ask('GET', `/deployments/${id}/versions?external_user_id=ada`)).body.data.length,
      1,
    );
    const version = (await api.ask('GET', `/deployments/${id}/versions/${first.version_id}`)).body.data;
    assert.deepEqual(
      [version.kind, version.runtime_port, version.artifact_manifest.files],
      ['dynamic', 3000, 1],
    );
    const release = (await api.ask('GET', `/releases/${version.release_id}`)).body.data;
    assert.deepEqual([release.artifact_sha256, release.health_check_path], [release.sha256, '/']);
    for (const at of [`releases/${release.id}`, `versions/${version.id}/release`])
      assert.deepEqual((await api.ask('GET', `/deployments/${id}/${at}`)).body.data, release);
    assert.equal((await api.ask('GET', `/deployments/${id}/releases`)).body.data.length, 1);
    assert.equal(
      (await api.ask('GET', `/deployments/${id}/versions/${failed.version_id}/release`)).status,
      404,
    );
    const other = await make();
    assert.equal((await api.ask('GET', `/deployments/${other.id}/versions/${version.id}`)).status, 404);
    assert.equal((await api.ask('GET', `/deployments/${other.id}/releases/${release.id}`)).status, 404);
    assert.equal((await api.ask('GET', `/releases/${release.id}`, { key: api.foreign_key })).status, 404);
  });

  test('promote and rollback: by version, by release, to the one before; what cannot be is refused', async () => {
    const { id } = await make();
    assert.equal((await api.ask('POST', `/deployments/${id}/rollback`)).body.code, 'NO_PREVIOUS_VERSION');
    const one = await live(id);
    const two = await live(id);
    const back = await api.ask('POST', `/deployments/${id}/rollback`);
    assert.equal(back.status, 200);
    assert.deepEqual([back.body.data.active_version_id, back.body.data.pending], [one.version_id, false]);
    assert.equal(back.body.data.changes[0].what, 'port');
    const promoted = await api.ask('POST', `/deployments/${id}/versions/${two.version_id}/promote`, {
      body: {},
    });
    assert.equal(promoted.body.data.active_version_id, two.version_id);
    const release_id = (await api.ask('GET', `/deployments/${id}/versions/${one.version_id}`)).body.data
      .release_id;
    const by_release = await api.ask('POST', `/deployments/${id}/rollback`, { body: { release_id } });
    assert.equal(by_release.body.data.active_release_id, release_id);

    const waiting = (await publish(id)).body.data.version_id;
    for (const at of [`versions/${waiting}/promote`, 'rollback'])
      assert.equal(
        (await api.ask('POST', `/deployments/${id}/${at}`, { body: { version_id: waiting } })).body.code,
        'VERSION_NOT_READY',
      );
    const other = await make();
    assert.equal(
      (await api.ask('POST', `/deployments/${other.id}/rollback`, { body: { version_id: one.version_id } }))
        .status,
      404,
    );
    await api.database.db
      .updateTable('releases')
      .set({ collected_at: new Date() })
      .where('id', '=', release_id)
      .execute();
    const gone = await api.ask('POST', `/deployments/${id}/versions/${one.version_id}/promote`);
    assert.deepEqual([gone.status, gone.body.code], [410, 'ARTIFACT_GONE']);
  });

  test('promote A, B, A with the keys some clients fix per release switches three times', async () => {
    const { id } = await make();
    await live(id);
    await live(id);
    const releases = (await api.ask('GET', `/deployments/${id}/releases`)).body.data.map((r: Json) => r.id);
    const promote = (release: string) =>
      api.ask('POST', `/deployments/${id}/releases/${release}/promote`, {
        body: {},
        headers: { 'idempotency-key': `promote:${id}:${release}` },
      });
    const [b, a] = releases;
    for (const release of [a, b, a]) {
      const answer = await promote(release);
      assert.equal(answer.headers.get('idempotency-replayed'), null);
      assert.equal(answer.body.data.active_release_id, release);
    }
    const replayed = await promote(a);
    assert.equal(replayed.headers.get('idempotency-replayed'), 'true');
    assert.equal(replayed.body.data.active_release_id, a);
  });

  test('builds, and their logs as JSON and as a stream that ends with the outcome', async () => {
    const { id } = await make();
    const { version } = (await publish(id)).body.data;
    await logLines(api.engine.buildLogPath(version.build_id), ['one', 'two', 'three']);
    const streaming = api.app.request(`/api/v1/deployments/${id}/logs`, {
      headers: { authorization: `Bearer ${api.key}`, accept: 'text/event-stream, application/json, */*' },
    });
    const frames = readFrames(await streaming);
    await api.engine.finish(version.id, 'failed');
    const got = await frames;
    assert.deepEqual(
      got.map((f) => f.event),
      ['log_line', 'log_line', 'log_line', 'done'],
    );
    assert.equal(got[0]!.data.line, 'one');
    assert.equal(got[3]!.data.result.state, 'failed');
    assert.equal(got[3]!.data.result.failure.code, 'BUILD_FAILED');
    const at = `/deployments/${id}/builds/${version.build_id}`;
    assert.equal((await api.ask('GET', at)).body.data.error_message, 'exit 1');
    assert.equal((await api.ask('GET', `${at}/logs?lines=2`)).body.data.logs, 'two\nthree\n');
    assert.match(
      (await api.ask('GET', `${at}/logs`, { headers: { accept: 'text/event-stream' } })).body,
      /event: done\n/,
    );
    assert.equal((await api.ask('GET', `/deployments/${id}/builds`)).body.data.length, 1);
    assert.equal((await api.ask('GET', `/deployments/${id}/builds/bld_no`)).status, 404);
    assert.equal((await api.ask('GET', `/deployments/${id}/logs?lines=1`)).body.data.lines[0].line, 'three');
    assert.equal((await api.ask('GET', `/deployments/${id}`)).body.data.failure.code, 'BUILD_FAILED');
  });

  test('runtime instances and their logs', async () => {
    const { id } = await make();
    const { version_id } = await live(id);
    const { release_id } = (await api.ask('GET', `/deployments/${id}/versions/${version_id}`)).body.data;
    const instance = await api.database.db.transaction().execute(async (trx) => {
      const row = await insertInstance(trx, {
        id: newId('ins'),
        tenant_id: api.tenant_id,
        deployment_id: id,
        version_id,
        release_id,
        operation_id: null,
        engine_id: 'eng_1',
        replica: 0,
        role: 'gating',
      });
      await setInstanceRole(trx, row, 'live');
      return (await setInstanceState(trx, row.id, 'healthy', {
        host: '127.0.0.1',
        port: 1234,
        started_at: new Date(),
      }))!;
    });
    await logLines(api.engine.instanceLogPath(instance.id), ['listening', 'GET /']);
    const [shown] = (await api.ask('GET', `/deployments/${id}/runtime-instances`)).body.data;
    assert.deepEqual(
      [shown.state, shown.role, shown.port, shown.memory_limit_mb],
      ['healthy', 'live', 1234, 512],
    );
    const at = `/deployments/${id}/runtime-instances/${instance.id}`;
    assert.deepEqual((await api.ask('GET', at)).body.data, shown);
    assert.equal((await api.ask('GET', `${at}/logs?lines=1`)).body.data.logs, 'GET /\n');
    assert.match((await api.ask('GET', `/deployments/${id}/logs`)).body.data.logs, /listening/);
    assert.equal(
      (await api.ask('GET', `/deployments/${id}/metrics`)).body.data.current.runtime_instances.healthy,
      1,
    );
    const once = await api.ask('GET', `/deployments/${id}/logs?follow=false`, {
      headers: { accept: 'text/event-stream' },
    });
    assert.match(once.body, /"line":"GET \/"[\s\S]*event: done/);
    const response = await api.app.request(`/api/v1${at}/logs`, {
      headers: { authorization: `Bearer ${api.key}`, accept: 'text/event-stream' },
    });
    const frames = readFrames(response);
    await api.database.db.transaction().execute((trx) => setInstanceState(trx, instance.id, 'stopped'));
    assert.deepEqual(
      (await frames).map((f) => f.event),
      ['log_line', 'log_line', 'done'],
    );
    assert.equal((await api.ask('GET', `/deployments/${id}/runtime-instances/ins_no`)).status, 404);
  });

  test('a foreign deployment is not there, in every call', async () => {
    const { id } = await make();
    const { version_id } = await live(id);
    for (const [method, at, body] of [
      ['GET', ''],
      ['PATCH', '', {}],
      ['DELETE', ''],
      ['POST', '/publish', { source_sandbox_id: sandbox.id }],
      ['POST', '/rollback', {}],
      ['POST', '/redeploy', {}],
      ['GET', '/versions'],
      ['GET', `/versions/${version_id}`],
      ['POST', `/versions/${version_id}/promote`, {}],
      ['POST', `/versions/${version_id}/retry`, {}],
      ['POST', `/versions/${version_id}/cancel`, {}],
      ['GET', '/releases'],
      ['GET', '/builds'],
      ['GET', '/logs'],
      ['GET', '/runtime-instances'],
      ['GET', '/metrics'],
      ['GET', '/env'],
      ['POST', '/env', { env: { A: '1' } }],
      ['DELETE', '/env/A'],
      ['POST', '/scale', { instances: 1 }],
      ['POST', '/resize', { size: 'xs' }],
    ] as const) {
      const answer = await api.ask(method, `/deployments/${id}${at}`, {
        key: api.foreign_key,
        ...(body ? { body } : {}),
      });
      assert.deepEqual([answer.status, answer.body.code], [404, 'NOT_FOUND'], `${method} ${at}`);
    }
  });
});
