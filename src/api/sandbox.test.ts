import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { openTestApi, type TestApi } from './testing/api.ts';

let api: TestApi;
before(async () => {
  api = await openTestApi({ sandboxes: 40 });
});
after(() => api.close());

const make = async (body: object = {}) => {
  const made = await api.ask('POST', '/sandboxes', { body });
  assert.equal(made.status, 201, JSON.stringify(made.body));
  return made.body;
};

describe('sandboxes', () => {
  test('create answers the bare object with the defaults of the protocol', async () => {
    const sandbox = await make({ template_id: 'miosa-sandbox' });
    assert.match(sandbox.id, /^sbx_/);
    assert.equal(sandbox.state, 'running');
    assert.equal(sandbox.ready, true);
    assert.equal(sandbox.resource_contract.id, 'sandbox/small@v1');
    assert.ok(!('data' in sandbox), 'clients unwrap on `data`');
    assert.deepEqual((await api.ask('GET', `/sandboxes/${sandbox.id}`)).body, sandbox);
  });

  test('an empty body with a JSON content type, and unknown fields, are fine', async () => {
    const empty = await api.ask('POST', '/sandboxes', { headers: { 'content-type': 'application/json' } });
    assert.equal(empty.status, 201);
    assert.equal((await api.ask('POST', '/sandboxes', { body: { region: 'eu', whatever: 1 } })).status, 201);
  });

  test('names are unique among the living', async () => {
    const first = await make({ name: 'one' });
    const second = await api.ask('POST', '/sandboxes', { body: { name: 'one' } });
    assert.equal(second.status, 409);
    assert.equal(second.body.code, 'CONFLICT');
    assert.equal((await api.ask('GET', '/sandboxes/by-name/one')).body.id, first.id);
    assert.equal((await api.ask('DELETE', `/sandboxes/${first.id}`)).body.deleted, true);
    assert.equal((await api.ask('GET', '/sandboxes/by-name/one')).status, 404);
    assert.equal((await api.ask('DELETE', `/sandboxes/${first.id}`)).status, 200, 'twice is fine');
    await make({ name: 'one' });
    const used = await api.ask('POST', `/sandboxes/${first.id}/exec`, { body: { command: 'true' } });
    assert.equal(used.body.code, 'SANDBOX_NOT_RUNNING');
  });

  test('what one machine does not have is refused by name', async () => {
    for (const body of [{ database: true }, { github_repo_url: 'https://x' }, { template_id: 'windows' }]) {
      const refused = await api.ask('POST', '/sandboxes', { body });
      assert.equal(refused.status, 422);
      assert.equal(refused.body.code, 'UNSUPPORTED');
    }
    assert.equal((await api.ask('POST', '/sandboxes/x/expose', { body: {} })).body.code, 'UNSUPPORTED');
  });

  test('wrong fields are 422 with a message per field', async () => {
    const wrong = await api.ask('POST', '/sandboxes', { body: { name: 5, tags: 'a', env: { '1X': 'a' } } });
    assert.equal(wrong.status, 422);
    assert.equal(wrong.body.code, 'VALIDATION_ERROR');
    assert.deepEqual(Object.keys(wrong.body.errors).sort(), ['name', 'tags']);
    const env = await api.ask('POST', '/sandboxes', { body: { env: { '1X': 'a' } } });
    assert.ok(env.body.errors['env.1X']);
    const size = await api.ask('POST', '/sandboxes', {
      body: { cpu_count: 3, memory_mb: 1, disk_size_mb: 2 },
    });
    assert.ok(size.body.errors.size);
    const metadata = await api.ask('POST', '/sandboxes', { body: { metadata: { a: 'x'.repeat(20_000) } } });
    assert.ok(metadata.body.errors.metadata);
  });

  test('patch, tags, extend, pause, resume, stop, readiness, usage, logs', async () => {
    const { id } = await make({ name: 'two' });
    const patched = await api.ask('PATCH', `/sandboxes/${id}`, {
      body: { name: 'zwei', metadata: { a: 1 }, slug: null },
    });
    assert.equal(patched.body.name, 'zwei');
    assert.deepEqual(patched.body.metadata, { a: 1 });
    assert.equal((await api.ask('PATCH', `/sandboxes/${id}`)).body.name, 'zwei');
    assert.deepEqual((await api.ask('PATCH', `/sandboxes/${id}/tags`, { body: { tags: ['x'] } })).body.tags, [
      'x',
    ]);
    assert.equal(
      (await api.ask('POST', `/sandboxes/${id}/extend`, { body: { timeout_sec: 60 } })).body.timeout_sec,
      60,
    );
    assert.equal((await api.ask('POST', `/sandboxes/${id}/pause`, { body: {} })).body.state, 'paused');
    assert.equal((await api.ask('GET', `/sandboxes/${id}/readiness`)).body.ready, false);
    assert.equal((await api.ask('POST', `/sandboxes/${id}/resume`, { body: {} })).body.state, 'running');
    assert.equal((await api.ask('POST', `/sandboxes/${id}/stop`)).body.state, 'paused');
    const used = await api.ask('POST', `/sandboxes/${id}/exec`, { body: { command: 'true' } });
    assert.equal(used.status, 200, 'a persistent sandbox resumes on use');
    assert.equal((await api.ask('GET', `/sandboxes/${id}`)).body.state, 'running');
    assert.match((await api.ask('GET', `/sandboxes/${id}/readiness/stream`)).body, /event: ready\n/);
    assert.equal((await api.ask('GET', `/sandboxes/${id}/usage`)).body.data.sandbox_id, id);
    assert.equal((await api.ask('GET', `/sandboxes/${id}/logs`)).body.data.logs, '');
    assert.equal((await api.ask('GET', '/templates')).body.templates.length, 1);
  });

  test('variables are kept sealed, previewed, and given to exec', async () => {
    const { id } = await make({ env: { GREETING: 'hello there' } });
    const put = await api.ask('PUT', `/sandboxes/${id}/env`, {
      body: { vars: [{ key: 'API_KEY', value: 'verysecret' }] },
    });
    assert.deepEqual(
      put.body.data.map((v: { key: string; preview: string }) => [v.key, v.preview]),
      [
        ['API_KEY', '••••••'],
        ['GREETING', 'hel…re'],
      ],
    );
    const row = await api.database.db
      .selectFrom('sandboxes')
      .select('env_encrypted')
      .where('id', '=', id)
      .executeTakeFirst();
    assert.ok(!row!.env_encrypted!.includes('hello'));
    const ran = await api.ask('POST', `/sandboxes/${id}/exec`, {
      body: { command: 'echo $GREETING $API_KEY $X', env: { X: '1' } },
    });
    assert.equal(ran.body.stdout, 'hello there verysecret 1\n');
    assert.equal((await api.ask('DELETE', `/sandboxes/${id}/env/GREETING`)).body.deleted, true);
    assert.equal((await api.ask('DELETE', `/sandboxes/${id}/env/GREETING`)).status, 404);
    assert.equal((await api.ask('GET', `/sandboxes/${id}/env`)).body.data.length, 1);
  });

  test('lists filter by state, tags and attribution, and page to the end', async () => {
    const ids: string[] = [];
    for (let i = 0; i < 7; i++)
      ids.push((await make({ tags: ['paged', `n${i}`], external_user_id: 'ada' })).id);
    const seen: string[] = [];
    let cursor = '';
    for (let pages = 0; pages < 10; pages++) {
      const page = await api.ask('GET', `/sandboxes?tags=paged&limit=3${cursor}`);
      seen.push(...page.body.data.map((s: { id: string }) => s.id));
      if (page.body.next_cursor === null) break;
      cursor = `&cursor=${page.body.next_cursor}`;
    }
    assert.deepEqual(seen, ids.toReversed());
    assert.equal((await api.ask('GET', '/sandboxes?tags=paged,n3')).body.data.length, 1);
    assert.equal((await api.ask('GET', '/sandboxes?external_user_id=ada')).body.data.length, 7);
    assert.equal((await api.ask('GET', '/sandboxes?external_user_id=bob')).body.data.length, 0);
    const second = await api.ask('GET', '/sandboxes?tags=paged&page=2&page_size=3');
    assert.deepEqual(
      second.body.data.map((s: { id: string }) => s.id),
      ids.toReversed().slice(3, 6),
    );
    assert.equal((await api.ask('GET', '/sandboxes?cursor=nonsense')).body.code, 'INVALID_CURSOR');
    assert.equal((await api.ask('GET', '/sandboxes?limit=0')).status, 422);
    assert.equal((await api.ask('GET', '/sandboxes?state=odd')).status, 422);
  });

  test('workspaces and projects are found or made from labels', async () => {
    const a = await make({ external_workspace_id: 'clinic_1', external_project_id: 'site' });
    const b = await make({ external_workspace_id: 'clinic_1', external_project_id: 'site' });
    const c = await make({ external_workspace_id: 'clinic_2' });
    assert.equal(a.workspace_id, b.workspace_id);
    assert.equal(a.project_id, b.project_id);
    assert.notEqual(a.workspace_id, c.workspace_id);
    assert.equal((await api.ask('POST', '/sandboxes', { body: { project_id: 'prj_no' } })).status, 404);
    const groups = await api.ask('GET', '/workspaces');
    assert.ok(groups.body.data.some((w: { external_id: string }) => w.external_id === 'clinic_1'));
    assert.ok((await api.ask('GET', `/projects?workspace_id=${a.workspace_id}`)).body.data.length >= 1);
  });

  test('a foreign sandbox is not there, in every call', async () => {
    const { id } = await make();
    for (const [method, path, body] of [
      ['GET', ''],
      ['PATCH', '', {}],
      ['DELETE', ''],
      ['POST', '/pause'],
      ['GET', '/env'],
      ['GET', '/files'],
      ['GET', '/usage'],
      ['POST', '/exec', { command: 'true' }],
      ['POST', '/deploy', {}],
      ['PUT', '/archive'],
    ] as const) {
      const answer = await api.ask(method, `/sandboxes/${id}${path}`, {
        key: api.foreign_key,
        ...(body ? { body } : {}),
      });
      assert.equal(answer.status, 404, `${method} ${path}`);
      assert.equal(answer.body.code, 'NOT_FOUND');
    }
  });

  test('the count is limited', async () => {
    let last = await api.ask('POST', '/sandboxes', { body: {} });
    for (let i = 0; i < 41 && last.status === 201; i++)
      last = await api.ask('POST', '/sandboxes', { body: {} });
    assert.equal(last.status, 409);
    assert.equal(last.body.code, 'TOO_MANY');
  });
});
