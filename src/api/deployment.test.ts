import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { type Json, openTestApi, sandboxAndDeployment, type TestApi } from './testing/api.ts';

let api: TestApi;
let sandbox: Json;
before(async () => {
  api = await openTestApi();
  sandbox = (await sandboxAndDeployment(api)).sandbox;
});
after(() => api.close());

let count = 0;
const make = async (body: object = {}): Promise<Json> => {
  const made = await api.ask('POST', '/deployments', { body: { name: `App ${++count}`, ...body } });
  assert.equal(made.status, 201, JSON.stringify(made.body));
  return made.body.data;
};
describe('deployments', () => {
  test('create: slug from the name, a free one when taken, URL from the engine', async () => {
    const one = await make({ name: 'My Café', metadata: { a: 1 }, build_command: 'make' });
    const two = await make({ name: 'My Café' });
    assert.deepEqual([one.slug, two.slug], ['my-cafe', 'my-cafe-2']);
    assert.equal(one.public_url, 'http://my-cafe.default.localhost:7080');
    assert.deepEqual([one.state, one.source_type, one.build_command], ['pending', 'sandbox', 'make']);
    assert.deepEqual((await api.ask('GET', `/deployments/${one.id}`)).body.data, one);
    assert.equal((await api.ask('GET', '/deployments/by-name/my-cafe-2')).body.data.id, two.id);
    assert.equal((await api.ask('GET', '/deployments/by-name/none')).status, 404);
    const taken = await api.ask('POST', '/deployments', { body: { name: 'x', slug: 'my-cafe' } });
    assert.equal(taken.body.code, 'CONFLICT');
  });

  test('create refuses what it cannot make, field by field', async () => {
    assert.deepEqual(Object.keys((await api.ask('POST', '/deployments', { body: {} })).body.errors), [
      'name',
    ]);
    const wrong = { name: 'x', port: 0, slug: 'Ä', source_type: 'odd', health_check_path: 'x' };
    const answer = await api.ask('POST', '/deployments', { body: wrong });
    assert.deepEqual(Object.keys(answer.body.errors).sort(), [
      'health_check_path',
      'port',
      'slug',
      'source_type',
    ]);
    for (const body of [{ database: true }, { metadata: { deployment_product: 'docker_deploy' } }])
      assert.equal(
        (await api.ask('POST', '/deployments', { body: { name: 'x', ...body } })).body.code,
        'UNSUPPORTED',
      );
    assert.equal(
      (await api.ask('POST', '/projects/prj_no/deployments', { body: { name: 'x' } })).status,
      404,
    );
    const made = await api.ask('POST', `/projects/${sandbox.project_id}/deployments`, {
      body: { name: 'x' },
    });
    assert.equal(made.body.data.project_id, sandbox.project_id);
    assert.equal(
      (await api.ask('POST', `/deployments/${made.body.data.id}/domains`, { body: {} })).status,
      422,
    );
  });

  test('camelCase spellings of documented inputs are read, unless the other is there', async () => {
    const made = await make({ buildCommand: 'a', runCommand: 'b', run_command: 'c', healthCheckPath: '/h' });
    assert.deepEqual(
      [made.build_command, made.run_command, made.settings.health_check_path],
      ['a', 'c', '/h'],
    );
  });

  test('patch: nothing, some, null clears, slug moves the URL', async () => {
    const { id, slug } = await make({ build_command: 'a', grace_sec: 1.5 });
    const same = await api.ask('PATCH', `/deployments/${id}`);
    assert.deepEqual([same.status, same.body.data.slug], [200, slug]);
    const changed = await api.ask('PATCH', `/deployments/${id}`, {
      body: {
        build_command: null,
        run_command: 'r',
        output_path: '/workspace/out/',
        slug: 'moved',
        grace_ms: 5,
      },
    });
    const { settings, public_url } = changed.body.data;
    assert.deepEqual(
      [settings.build_command, settings.run_command, settings.output_path],
      [null, 'r', 'out'],
    );
    assert.equal(settings.grace_ms, 5);
    assert.equal(public_url, 'http://moved.default.localhost:7080');
    const outside = await api.ask('PATCH', `/deployments/${id}`, { body: { output_path: '../x' } });
    assert.ok(outside.body.errors.output_path);
  });

  test('changes that come at once all stay', async () => {
    const made = await api.ask('POST', '/deployments', { body: { name: 'at once' } });
    const { id } = made.body.data;
    const wanted = {
      install_command: 'a',
      build_command: 'b',
      run_command: 'c',
      port: 4000,
      health_check_path: '/h',
    };
    const changes = Object.entries(wanted).map(([field, value]) =>
      api.ask('PATCH', `/deployments/${id}`, { body: { [field]: value } }),
    );
    const resized = api.ask('POST', `/deployments/${id}/resize`, { body: { size: 'xs' } });
    for (const { status } of await Promise.all([...changes, resized])) assert.equal(status, 200);
    const { settings } = (await api.ask('GET', `/deployments/${id}`)).body.data;
    assert.partialDeepStrictEqual(settings, { ...wanted, memory_bytes: 2048 * 1024 * 1024 });
  });

  test('lists filter and page; delete, scale, resize, metrics', async () => {
    const ids: string[] = [];
    for (let i = 0; i < 5; i++) ids.push((await make({ external_project_id: 'p' })).id);
    const first = await api.ask('GET', '/deployments?external_project_id=p&limit=3');
    const rest = await api.ask(
      'GET',
      `/deployments?external_project_id=p&limit=3&cursor=${first.body.next_cursor}`,
    );
    assert.deepEqual(
      [...first.body.data, ...rest.body.data].map((d) => d.id),
      ids.toReversed(),
    );
    assert.equal(rest.body.next_cursor, null);
    const id = ids[0]!;
    assert.equal(
      (await api.ask('POST', `/deployments/${id}/scale`, { body: { instances: 3 } })).body.data
        .desired_replicas,
      3,
    );
    assert.equal((await api.ask('POST', `/deployments/${id}/scale`, { body: {} })).status, 422);
    const stopped = (await api.ask('POST', `/deployments/${id}/scale`, { body: { instances: 0 } })).body.data;
    assert.deepEqual([stopped.state, stopped.desired_replicas], ['stopped', 0]);
    const again = (await api.ask('POST', `/deployments/${id}/scale`, { body: { instances: 3 } })).body.data;
    assert.deepEqual([again.state, again.desired_replicas], ['pending', 3]);
    const resized = await api.ask('POST', `/deployments/${id}/resize`, { body: { size: 'large' } });
    assert.equal(resized.body.data.settings.memory_bytes, 16_384 * 1024 * 1024);
    assert.equal(
      (await api.ask('POST', `/deployments/${id}/resize`, { body: { size: 'vast' } })).status,
      422,
    );
    assert.equal((await api.ask('GET', `/deployments/${id}/metrics?window=24h`)).body.data.window, '24h');
    assert.equal((await api.ask('DELETE', `/deployments/${id}`)).body.deleted, true);
    assert.equal((await api.ask('GET', `/deployments/${id}`)).status, 404);
  });

  test('variables: previews only, secrets masked and staying secret, removed', async () => {
    const { id } = await make({ env: { START: 'from create' } });
    const set = await api.ask('POST', `/deployments/${id}/env`, {
      body: {
        env: { NAME: 'a longer value', VITE_X: 'public!!' },
        vars: [{ name: 'PLAIN', value: 'hidden value', is_secret: true }],
      },
    });
    const shown = Object.fromEntries(
      set.body.data.map((v: Json) => [v.name, [v.preview, v.is_secret, v.at_build]]),
    );
    assert.deepEqual(shown.NAME, ['a l…ue', false, false]);
    assert.deepEqual(shown.VITE_X, ['pub…!!', false, true]);
    assert.deepEqual(shown.PLAIN, ['••••••', true, false]);
    assert.ok(!JSON.stringify(set.body).includes('hidden value'));
    const again = await api.ask('POST', `/deployments/${id}/env`, {
      body: { env: { PLAIN: 'other value' } },
    });
    assert.equal(again.body.data.find((v: Json) => v.name === 'PLAIN').is_secret, true);
    const staging = await api.ask('POST', `/deployments/${id}/env`, {
      body: { env: { S: 'x' }, environment: 'staging' },
    });
    assert.deepEqual(
      staging.body.data.map((v: Json) => v.name),
      ['S'],
    );
    assert.equal((await api.ask('GET', `/deployments/${id}/env?environment=staging`)).body.data.length, 1);
    assert.equal((await api.ask('DELETE', `/deployments/${id}/env/NAME`)).body.deleted, true);
    assert.equal((await api.ask('DELETE', `/deployments/${id}/env/NAME`)).status, 404);
    for (const body of [
      { env: { 'A B': '1' } },
      { env: { A: 'x'.repeat(65_537) } },
      { env: { __proto__x: 1 } },
      { vars: [{ value: 'x' }] },
    ])
      assert.equal((await api.ask('POST', `/deployments/${id}/env`, { body })).status, 422);
    const many = Object.fromEntries(Array.from({ length: 200 }, (_, i) => [`V${i}`, 'x']));
    assert.ok((await api.ask('POST', `/deployments/${id}/env`, { body: { env: many } })).body.errors.env);
  });

  test('a queue of publishes is bounded', async () => {
    api.deps.limits.queued_operations = 2;
    const { id } = await make();
    const publish = () =>
      api.ask('POST', `/deployments/${id}/publish`, { body: { source_sandbox_id: sandbox.id } });
    assert.deepEqual([(await publish()).status, (await publish()).status], [202, 202]);
    assert.equal((await publish()).body.code, 'TOO_MANY');
  });
});
