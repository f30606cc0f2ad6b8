/** Webhooks, domains, the audit log and approvals, over one database. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { readRoutes } from '../store/route.ts';
import { type Json, openTestApi, sandboxAndDeployment, type TestApi } from './testing/api.ts';

let api: TestApi;
let sandbox: Json;
let deployment: Json;
before(async () => {
  api = await openTestApi();
  ({ sandbox, deployment } = await sandboxAndDeployment(api));
});
after(() => api.close());

const status = async (method: string, at: string, o: Parameters<TestApi['ask']>[2] = {}) => {
  const answer = await api.ask(method, at, o);
  return [answer.status, answer.body.code];
};

describe('webhooks', () => {
  const url = 'https://hooks.example.com/kiln';
  const make = async (more: object = {}, headers: Record<string, string> = {}): Promise<Json> =>
    (await api.ask('POST', '/webhooks', { body: { url, ...more }, headers })).body.data;

  test('made with a secret that is shown once, and with values of headers never shown', async () => {
    const body = { url, events: ['deployment.*'], headers: { 'X-Token': 'very-secret' }, retry_count: 5 };
    const made = await api.ask('POST', '/webhooks', { body });
    assert.equal(made.status, 201);
    const { id, secret, secret_preview } = made.body.data;
    assert.match(secret, /^whsec_[\w-]{43}$/);
    assert.ok(secret.startsWith(secret_preview.slice(0, -1)));
    const got = await api.ask('GET', `/webhooks/${id}`);
    assert.equal(got.body.data.secret, undefined);
    assert.deepEqual(got.body.data.header_names, ['X-Token']);
    const shown = JSON.stringify([got.body, (await api.ask('GET', '/webhooks')).body]);
    assert.ok(!shown.includes('very-secret') && !shown.includes(secret));
    const rows = JSON.stringify(await api.database.db.selectFrom('webhooks').selectAll().execute());
    assert.ok(!rows.includes('very-secret') && !rows.includes(secret));
  });

  test('refuses what is not https, private, or malformed', async () => {
    for (const wrong of [
      'http://hooks.example.com',
      'https://127.0.0.1/x',
      'https://[::1]/',
      'https://169.254.169.254/latest',
      'https://localhost/',
      'https://u:p@example.com/',
      'not a url',
    ])
      assert.deepEqual(await status('POST', '/webhooks', { body: { url: wrong } }), [
        422,
        'VALIDATION_ERROR',
      ]);
    for (const body of [
      {},
      { url, events: ['a b'] },
      { url, retry_count: 11 },
      { url, headers: { Host: 'x' } },
      { url, headers: { x: 'a\r\nb' } },
    ])
      assert.deepEqual(await status('POST', '/webhooks', { body }), [422, 'VALIDATION_ERROR']);
  });

  test('changed, replayed by key, listed to the end, removed; nobody else sees it', async () => {
    const key = { 'idempotency-key': 'hook' };
    const first = await make({}, key);
    assert.equal((await make({}, key)).secret, first.secret, 'the same answer, secret included');
    const changed = await api.ask('PATCH', `/webhooks/${first.id}`, {
      body: { is_active: false, name: 'off', events: [] },
    });
    assert.deepEqual([changed.body.data.is_active, changed.body.data.name], [false, 'off']);
    assert.equal((await status('PATCH', `/webhooks/${first.id}`, { body: {} }))[0], 200);
    assert.deepEqual(await status('POST', `/webhooks/${first.id}/test`), [409, 'CONFLICT']);
    const seen: string[] = [];
    for (let cursor: string | null = ''; cursor !== null; ) {
      const page: Json = (await api.ask('GET', `/webhooks?limit=1${cursor && `&cursor=${cursor}`}`)).body;
      seen.push(...page.data.map((row: Json) => row.id));
      cursor = page.next_cursor;
    }
    assert.equal(new Set(seen).size, seen.length);
    assert.ok(seen.includes(first.id));
    for (const [method, at] of [
      ['GET', ''],
      ['PATCH', ''],
      ['DELETE', ''],
      ['POST', '/test'],
      ['GET', '/deliveries'],
      ['POST', '/deliveries/whd_x/replay'],
    ] as const)
      assert.equal(
        (await status(method, `/webhooks/${first.id}${at}`, { key: api.foreign_key }))[0],
        404,
        method + at,
      );
    const reader = await api.makeKey({ scopes: ['deployments:write'] });
    assert.deepEqual(await status('GET', '/webhooks', { key: reader }), [403, 'insufficient_scope']);
    assert.equal((await api.ask('DELETE', `/webhooks/${first.id}`)).body.deleted, true);
    assert.equal((await status('GET', `/webhooks/${first.id}`))[0], 404);
  });

  test('a test and a replay are queued, in the delivery log', async () => {
    const { id } = await make();
    const queued = await api.ask('POST', `/webhooks/${id}/test`);
    assert.equal(queued.status, 202);
    const at = `/webhooks/${id}/deliveries`;
    const again = await api.ask('POST', `${at}/${queued.body.data.id}/replay`);
    assert.equal(again.body.data.event_id, queued.body.data.event_id);
    assert.equal(again.body.data.replay_of, queued.body.data.id);
    assert.equal((await api.ask('GET', `${at}?state=pending`)).body.data.length, 2);
    assert.equal((await api.ask('GET', `${at}?state=failed`)).body.data.length, 0);
    assert.equal((await status('POST', `${at}/whd_none/replay`))[0], 404);
  });
});

describe('custom domains', () => {
  const attach = (domain: string, more: object = {}) =>
    api.ask('POST', `/deployments/${deployment.id}/domains`, { body: { domain, ...more } });
  const hosts = async () => {
    const { rows } = await readRoutes(api.database.db);
    const row = rows.find((r) => r.deployment_id === deployment.id)!;
    return { hosts: row.hosts, redirects: row.redirects };
  };

  test('attached, failed, verified by TXT, routed with its redirect, removed', async () => {
    const made = await attach('Example.COM.', { redirect_policy: 'www_to_apex' });
    assert.equal(made.status, 201, JSON.stringify(made.body));
    const { id, domain, state, dns_records, verification_target } = made.body.data;
    assert.deepEqual([domain, state], ['example.com', 'pending']);
    assert.match(verification_target, /\.kiln\.test$/);
    assert.deepEqual((await hosts()).hosts, [], 'no proof, no route');
    const verify = () => api.ask('POST', `/deployments/${deployment.id}/domains/${id}/verify`);
    const failed = (await verify()).body.data;
    assert.equal(failed.state, 'failed');
    assert.match(failed.error_message, /Neither CNAME/);
    const txt = dns_records.find((record: Json) => record.type === 'TXT');
    api.dns.records.set(`TXT ${txt.name}`, ['spf', txt.value]);
    const active = (await verify()).body.data;
    assert.deepEqual([active.state, active.verified], ['active', true]);
    assert.equal((await api.ask('GET', `/deployments/${deployment.id}`)).body.data.custom_domain_id, id);
    assert.deepEqual(await hosts(), {
      hosts: ['example.com'],
      redirects: [{ from: 'www.example.com', to: 'example.com' }],
    });
    const at = `/deployments/${deployment.id}/domains/${id}`;
    await api.ask('PATCH', at, { body: { redirect_policy: 'apex_to_www' } });
    assert.deepEqual((await hosts()).hosts, ['www.example.com']);
    assert.equal((await api.ask('GET', at)).body.data.redirect_policy, 'apex_to_www');
    assert.equal((await attach('example.com')).body.data.id, id, 'attached already');
    assert.equal((await api.ask('DELETE', at)).body.deleted, true);
    assert.deepEqual((await hosts()).hosts, []);
    assert.equal((await status('GET', at))[0], 404);
  });

  test('by name: made alone, verified by CNAME, assigned', async () => {
    const made = await api.ask('POST', '/domains', { body: { domain: 'app.example.org' } });
    assert.equal(made.body.data.deployment_id, null);
    api.dns.records.set('CNAME app.example.org', [`${made.body.data.verification_target}.`]);
    const verified = await api.ask('POST', '/domains/app.example.org/verify');
    assert.equal(verified.body.data.state, 'verified');
    const body = { deployment_id: deployment.id };
    const assigned = await api.ask('POST', '/domains/app.example.org/assign', { body });
    assert.equal(assigned.body.data.state, 'active');
    assert.deepEqual((await hosts()).hosts, ['app.example.org']);
    const flat = await api.ask('GET', '/custom-domains');
    assert.equal(flat.body.data[0].resource_id, deployment.id);
    assert.equal((await api.ask('DELETE', '/domains/APP.example.org')).body.deleted, true);
    assert.equal((await status('GET', '/domains/app.example.org'))[0], 404);
  });

  test('the flat family, filters, and a deployment that takes its domains with it', async () => {
    const other = (await api.ask('POST', '/deployments', { body: { name: 'gone' } })).body.data;
    const body = { domain: 'gone.example.net', resource_id: other.id, external_user_id: 'u1' };
    const { id } = (await api.ask('POST', '/custom-domains', { body })).body.data;
    assert.equal((await api.ask('GET', '/custom-domains?external_user_id=u1')).body.data.length, 1);
    assert.equal((await api.ask('GET', '/custom-domains?external_user_id=u2')).body.data.length, 0);
    assert.equal((await api.ask('DELETE', `/custom-domains/${id}`)).body.deleted, true);
    assert.equal((await status('DELETE', `/custom-domains/${id}`))[0], 404);
  });

  test('a claim without proof keeps nobody out; proof does', async () => {
    const mine = (await attach('fight.example.com')).body.data;
    const theirs = await api.ask('POST', '/domains', {
      key: api.foreign_key,
      body: { domain: 'fight.example.com' },
    });
    assert.equal(theirs.status, 201);
    const record = theirs.body.data.verification_target;
    api.dns.records.set('CNAME fight.example.com', [record]);
    const at = `/deployments/${deployment.id}/domains/${mine.id}/verify`;
    assert.equal((await api.ask('POST', at)).body.data.state, 'failed', 'their token is not ours');
    await api.ask('POST', '/domains/fight.example.com/verify', { key: api.foreign_key });
    api.dns.records.set('CNAME fight.example.com', [mine.verification_target]);
    assert.deepEqual(await status('POST', at), [409, 'CONFLICT']);
    assert.equal(
      (await status('GET', `/deployments/${deployment.id}/domains`, { key: api.foreign_key }))[0],
      404,
    );
  });

  test('refuses addresses, wildcards, own names, and a redirect from a name that is not proved', async () => {
    for (const domain of [
      '127.0.0.1',
      '*.example.com',
      'localhost',
      'http://x.de',
      'a.kiln.test',
      '-a.de',
      '',
    ])
      assert.deepEqual([(await attach(domain)).status, domain], [422, domain]);
    assert.equal((await attach('www.a.de', { redirect_policy: 'apex_to_www' })).status, 422);
    const key = await api.makeKey({ scopes: ['deployments:write'] });
    assert.equal((await status('POST', '/domains', { key, body: { domain: 'x.de' } }))[0], 403);
  });
});

describe('the audit log', () => {
  test('has who, what, from where and the end of every change, refused ones too, and no values', async () => {
    const secret = 'not-for-the-log';
    await api.ask('POST', `/deployments/${deployment.id}/env`, {
      body: { env: { TOKEN: secret } },
      headers: { 'user-agent': 'audit-test' },
    });
    const key = await api.makeKey({ scopes: ['deployments:read'] });
    await api.ask('POST', `/deployments/${deployment.id}/scale`, { key, body: { instances: 2 } });
    await api.ask('GET', `/deployments/${deployment.id}`);
    const log = await api.ask('GET', `/audit?object_id=${deployment.id}&limit=2`);
    const [refused, set] = log.body.data;
    assert.deepEqual(
      [refused.action, refused.status, refused.error_code],
      ['scaleDeployment', 403, 'insufficient_scope'],
    );
    assert.deepEqual([set.user_agent, set.status, set.fields], ['audit-test', 200, ['env']]);
    assert.ok(!JSON.stringify((await api.ask('GET', '/audit?limit=200')).body).includes(secret));
    assert.equal((await api.ask('GET', `/audit?action=scaleDeployment`)).body.data[0].id, refused.id);
    assert.ok(log.body.next_cursor);
    assert.deepEqual(await status('GET', '/audit', { key }), [403, 'insufficient_scope']);
    assert.equal(
      (await api.ask('GET', '/audit', { key: api.foreign_key })).body.data.every(
        (row: Json) => row.key_id !== set.key_id,
      ),
      true,
    );
  });

  test('a replay is logged with the stored error', async () => {
    const headers = { 'idempotency-key': 'audited' };
    await api.ask('POST', '/deployments/dep_no/rollback', { body: {}, headers });
    await api.ask('POST', '/deployments/dep_no/rollback', { body: {}, headers });
    const { data } = (await api.ask('GET', '/audit?action=rollback&limit=2')).body;
    assert.deepEqual(
      data.map((row: Json) => row.error_code),
      ['NOT_FOUND', 'NOT_FOUND'],
    );
  });
});

describe('approvals', () => {
  test('an agent proposes, a person approves or denies, and nothing happens before', async () => {
    const agent = await api.makeKey({
      scopes: ['sandboxes:read', 'deployments:publish', 'deployments:propose'],
    });
    const staged = await api.ask('POST', `/deployments/${deployment.id}/publish`, {
      key: agent,
      body: { source_sandbox_id: sandbox.id, promote: false },
    });
    const { version_id } = staged.body.data;
    await api.engine.finish(version_id);
    const promote = `/deployments/${deployment.id}/versions/${version_id}/promote`;
    const asked = await api.ask('POST', promote, { key: agent, headers: { 'idempotency-key': 'ask' } });
    assert.deepEqual([asked.status, asked.body.code], [403, 'APPROVAL_REQUIRED']);
    const { approval_id } = asked.body.error.details;
    const twice = await api.ask('POST', promote, { key: agent });
    assert.equal(twice.body.error.details.approval_id, approval_id, 'asked once');
    const before = (await api.ask('GET', `/deployments/${deployment.id}`)).body.data;
    assert.notEqual(before.active_version_id, version_id);
    const at = `/approvals/${approval_id}`;
    assert.deepEqual(await status('POST', `${at}/approve`, { key: agent }), [403, 'insufficient_scope']);
    assert.equal((await status('POST', `${at}/approve`, { key: api.foreign_key }))[0], 404);
    const [pending] = (await api.ask('GET', '/approvals?state=pending')).body.data;
    assert.equal(pending.id, approval_id);
    const done = await api.ask('POST', `${at}/approve`);
    assert.equal(done.body.data.active_version_id, version_id);
    const approved = (await api.ask('GET', at)).body.data;
    assert.deepEqual([approved.state, approved.operation_id], ['approved', done.body.data.operation_id]);
    assert.deepEqual(await status('POST', `${at}/deny`), [409, 'CONFLICT']);
    const again = await api.ask('POST', promote, { key: agent });
    const denied = await api.ask('POST', `/approvals/${again.body.error.details.approval_id}/deny`);
    assert.equal(denied.body.data.state, 'denied');
  });
});
