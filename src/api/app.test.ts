import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import { after, before, describe, test } from 'node:test';
import { ERROR_CODES, KilnError } from '../domain/errors.ts';
import { appendEvent } from '../store/event.ts';
import { beginIdempotent, recordSubject } from '../store/idempotency.ts';
import { ensureKey, hashKey } from './auth.ts';
import { errorsPage } from './errors-page.ts';
import { fingerprint } from './idempotency.ts';
import { openApiDocument } from './openapi.ts';
import { ENDPOINTS } from './routes.ts';
import { serveApi } from './serve.ts';
import {
  type Json,
  newId,
  openTestApi,
  readFrames,
  sandboxAndDeployment,
  type TestApi,
} from './testing/api.ts';

let api: TestApi;
let sandbox: Json;
let deployment: Json;
before(async () => {
  api = await openTestApi();
  ({ sandbox, deployment } = await sandboxAndDeployment(api));
});
after(() => api.close());

describe('keys', () => {
  test('no key, an odd one, an unknown, expired or revoked one: 401', async () => {
    for (const authorization of [
      '',
      'Basic x',
      'Bearer',
      'Bearer msk_live_nope',
      `Bearer ${'x'.repeat(600)}`,
    ]) {
      const answer = await api.ask('GET', '/deployments', { headers: { authorization } });
      assert.deepEqual([answer.status, answer.body.code], [401, 'invalid_token']);
    }
    const expired = await api.makeKey({ scopes: ['*'], expires_at: new Date(Date.now() - 1) });
    assert.equal((await api.ask('GET', '/deployments', { key: expired })).status, 401);
  });

  test('made with less than the maker has, shown once, listed without it, dead at once when revoked', async () => {
    const made = await api.ask('POST', '/api-keys', { body: { name: 'ci', scopes: ['deployments:read'] } });
    assert.equal(made.status, 201);
    const { id, key, key_prefix } = made.body.data;
    assert.match(key, /^msk_live_[A-Za-z0-9_-]{43}$/);
    assert.equal(key.slice(0, 12), key_prefix);
    assert.equal((await api.ask('GET', '/deployments', { key })).status, 200);
    const list = await api.ask('GET', '/api-keys');
    assert.ok(!JSON.stringify(list.body).includes(key));
    const refused = await api.ask('POST', '/deployments', { key, body: { name: 'x' } });
    assert.deepEqual([refused.status, refused.body.code], [403, 'insufficient_scope']);
    assert.equal((await api.ask('DELETE', `/api-keys/${id}`, { key: api.foreign_key })).status, 404);
    assert.equal((await api.ask('DELETE', `/api-keys/${id}`)).body.status, 'revoked');
    assert.equal((await api.ask('GET', '/deployments', { key })).status, 401);
    const maker = await api.makeKey({ scopes: ['keys:write', 'deployments:read'] });
    const wider = await api.ask('POST', '/api-keys', { key: maker, body: { name: 'x', scopes: ['*'] } });
    assert.deepEqual([wider.status, wider.body.code], [403, 'FORBIDDEN']);
  });

  test('the rate limit answers 429 with the wait in header and body', async () => {
    const key = await api.makeKey({ scopes: ['*'], rpm: 2 });
    const answers = [];
    for (let i = 0; i < 3; i++) answers.push(await api.ask('GET', '/deployments', { key }));
    assert.deepEqual(
      answers.map((a) => a.status),
      [200, 200, 429],
    );
    const { headers, body } = answers[2]!;
    assert.equal(Number(headers.get('retry-after')), body.retry_after);
    assert.ok(body.retry_after >= 1 && body.retry_after <= 30);
    assert.equal(body.code, 'rate_limit_exceeded');
  });

  test('a key of one project sees and makes nothing elsewhere', async () => {
    const inside = (await api.ask('POST', '/deployments', { body: { name: 'in', project_slug: 'one' } })).body
      .data;
    const key = await api.makeKey({ scopes: ['*'], project_id: inside.project_id });
    assert.equal((await api.ask('GET', `/deployments/${inside.id}`, { key })).status, 200);
    assert.equal((await api.ask('GET', `/deployments/${deployment.id}`, { key })).status, 404);
    assert.equal((await api.ask('GET', `/sandboxes/${sandbox.id}`, { key })).status, 404);
    assert.deepEqual(
      (await api.ask('GET', '/deployments', { key })).body.data.map((d: Json) => d.id),
      [inside.id],
    );
    assert.equal((await api.ask('GET', '/sandboxes', { key })).body.data.length, 0);
    assert.equal((await api.ask('GET', '/projects', { key })).body.data.length, 1);
    const made = await api.ask('POST', '/deployments', {
      key,
      body: { name: 'y', external_workspace_id: 'elsewhere' },
    });
    assert.equal(made.body.data.project_id, inside.project_id);
    const other = { name: 'y', project_id: deployment.project_id };
    assert.equal((await api.ask('POST', '/deployments', { key, body: other })).status, 404);
    assert.equal(
      (await api.ask('POST', '/api-keys', { key, body: { name: 'z' } })).body.data.project_id,
      inside.project_id,
    );
    assert.equal((await api.ask('POST', '/gc', { key })).status, 403);
  });

  test('an agent that may publish but not promote', async () => {
    const key = await api.makeKey({ scopes: ['sandboxes:write', 'deployments:publish'] });
    const at = `/deployments/${deployment.id}/publish`;
    const body = { source_sandbox_id: sandbox.id };
    assert.equal((await api.ask('POST', at, { key, body })).body.code, 'insufficient_scope');
    const staged = await api.ask('POST', at, { key, body: { ...body, promote: false } });
    assert.equal(staged.status, 202);
    await api.engine.finish(staged.body.data.version_id);
    const promote = `/deployments/${deployment.id}/versions/${staged.body.data.version_id}/promote`;
    assert.equal((await api.ask('POST', promote, { key })).status, 403);
    const approver = await api.makeKey({ scopes: ['deployments:promote'] });
    assert.equal((await api.ask('POST', promote, { key: approver })).status, 200);
    assert.equal(
      (
        await api.ask('POST', `/sandboxes/${sandbox.id}/deploy`, {
          key,
          body: { name: 'fresh', promote: false },
        })
      ).status,
      403,
    );
  });

  test('the first key of an install is kept, and its row made once', async () => {
    let kept: string | null = null;
    const keep = async (make: () => string) => (kept ??= make());
    const first = await ensureKey(api.database.db, newId, api.tenant_id, keep);
    assert.equal(await ensureKey(api.database.db, newId, api.tenant_id, keep), first);
    for (const damaged of ['m', 'msk_live_', first.slice(0, 20), `${first}\0\0`])
      await assert.rejects(
        ensureKey(api.database.db, newId, api.tenant_id, async () => damaged),
        {
          code: 'CONFLICT',
        },
      );
    const rows = await api.database.db
      .selectFrom('api_keys')
      .select('id')
      .where('key_hash', '=', hashKey(first))
      .execute();
    assert.equal(rows.length, 1);
    assert.equal((await api.ask('GET', '/doctor', { key: first })).status, 200);
  });
});

describe('errors', () => {
  test('unknown routes, wrong methods, malformed bodies, odd ids', async () => {
    const cases: [string, string, Parameters<TestApi['ask']>[2], number, string][] = [
      ['GET', '/nothing/here', {}, 404, 'NOT_FOUND'],
      ['PUT', '/deployments', {}, 405, 'METHOD_NOT_ALLOWED'],
      ['POST', '/deployments', { raw: '{"a":' }, 400, 'INVALID_JSON'],
      ['POST', '/deployments', { raw: '[1]' }, 422, 'VALIDATION_ERROR'],
      [
        'POST',
        '/deployments',
        { raw: 'x=1', headers: { 'content-type': 'multipart/form-data' } },
        415,
        'UNSUPPORTED_MEDIA_TYPE',
      ],
      ['POST', '/deployments', { raw: 'x'.repeat(1024 * 1024 + 1) }, 413, 'FILE_TOO_LARGE'],
      ['GET', '/deployments/a%00b', {}, 400, 'INVALID_ID'],
      ['GET', '/deployments/%E0%A4%A', {}, 404, 'NOT_FOUND'],
      ['GET', '/deployments?limit=x', {}, 422, 'VALIDATION_ERROR'],
    ];
    for (const [method, at, o, status, code] of cases) {
      const answer = await api.ask(method, at, o);
      assert.deepEqual([answer.status, answer.body.code], [status, code], `${method} ${at}`);
    }
    assert.equal((await api.ask('PUT', '/deployments')).headers.get('allow'), 'GET, POST');
  });

  test('a fault of ours is logged under its request id and says nothing about itself', async () => {
    api.engine.before_publish = async () => {
      throw new Error('secret inner detail');
    };
    const answer = await api.ask('POST', `/deployments/${deployment.id}/publish`, {
      body: { source_sandbox_id: sandbox.id },
    });
    api.engine.before_publish = async () => {};
    assert.deepEqual([answer.status, answer.body.code], [500, 'INTERNAL_ERROR']);
    assert.ok(!JSON.stringify(answer.body).includes('secret inner detail'));
    assert.ok(
      api.logged.some(
        (line) => line.includes(answer.body.request_id) && line.includes('secret inner detail'),
      ),
    );
  });

  test('the manual has every code, and it and the OpenAPI document are up to date', async () => {
    const read = (name: string) => readFile(new URL(`../../${name}`, import.meta.url), 'utf8');
    const page = await read('docs/errors.md');
    for (const { wire, status } of Object.values(ERROR_CODES))
      assert.match(page, new RegExp(`\\| \`${wire}\` +\\| ${status} `));
    assert.equal(page, errorsPage(), 'run: node scripts/openapi.ts');
    const document = openApiDocument(ENDPOINTS.map(({ route }) => route));
    assert.deepEqual(
      JSON.parse(await read('openapi.json')),
      JSON.parse(JSON.stringify(document)),
      'run: node scripts/openapi.ts',
    );
  });

  test('operation ids are unique, and every 200 has a schema or a media type', () => {
    const ids = ENDPOINTS.map(({ route }) => route.id);
    assert.equal(new Set(ids).size, ids.length);
    for (const { route } of ENDPOINTS)
      for (const answer of Object.values(route.answers)) assert.ok(answer.schema || answer.media, route.id);
  });
});

describe('Idempotency-Key', () => {
  const publish = (key: string, body: object = {}, o: { key?: string } = {}) =>
    api.ask('POST', `/deployments/${deployment.id}/publish`, {
      body: { source_sandbox_id: sandbox.id, ...body },
      headers: { 'idempotency-key': key },
      ...o,
    });
  const published = () => api.engine.calls.filter((call) => call === 'publish').length;

  test('a hundred at once are one call and one answer', async () => {
    const before = published();
    const hold = Promise.withResolvers<void>();
    api.engine.before_publish = () => hold.promise;
    const all = Array.from({ length: 100 }, () => publish('many'));
    setTimeout(hold.resolve, 300);
    const answers = await Promise.all(all);
    api.engine.before_publish = async () => {};
    assert.equal(published() - before, 1);
    assert.equal(new Set(answers.map((a) => JSON.stringify(a.body))).size, 1);
    assert.equal(answers.filter((a) => a.headers.get('idempotency-replayed') === 'true').length, 99);
  });

  test('another body is refused, another path or tenant is another key, wait does not count', async () => {
    await publish('k1');
    assert.deepEqual(
      [(await publish('k1', { port: 1 })).status, (await publish('k1', { port: 1 })).body.code],
      [409, 'IDEMPOTENCY_KEY_REUSED'],
    );
    const held = await api.ask('POST', `/deployments/${deployment.id}/publish?wait=1`, {
      body: { source_sandbox_id: sandbox.id },
      headers: { 'Idempotency-Key': 'k1' },
    });
    assert.equal(held.headers.get('idempotency-replayed'), 'true');
    assert.equal((await publish('k1', {}, { key: api.foreign_key })).status, 404);
    const made = () => api.ask('POST', '/sandboxes', { body: {}, headers: { 'idempotency-key': 'k1' } });
    const first = await made();
    assert.equal((await made()).body.id, first.body.id);
    assert.equal((await publish('k'.repeat(501))).status, 422);
  });

  test("the caller's errors are kept, the engine's are not", async () => {
    const gone = () =>
      api.ask('POST', '/deployments/dep_no/rollback', { body: {}, headers: { 'idempotency-key': 'gone' } });
    assert.equal((await gone()).headers.get('idempotency-replayed'), null);
    assert.equal((await gone()).headers.get('idempotency-replayed'), 'true');
    api.engine.before_publish = async () => {
      throw new KilnError('STORAGE_FAILED', 'The store is down.');
    };
    assert.equal((await publish('again')).status, 503);
    api.engine.before_publish = async () => {};
    assert.equal((await publish('again')).status, 202);
  });

  test('an attempt that died after its effect is answered with that effect', async () => {
    const before = await publish('lost-first');
    const path = `/api/v1/deployments/${deployment.id}/publish`;
    const scope = { tenant_id: api.tenant_id, method: 'POST', path, key: 'lost', owner: 'dead' };
    const body = JSON.stringify({ source_sandbox_id: sandbox.id });
    const sha256 = fingerprint(new URL(`http://x${path}`), Buffer.from(body));
    await beginIdempotent(api.database.db, scope, sha256, -1);
    await recordSubject(api.database.db, scope, { operation_id: before.body.data.operation_id });
    const calls = published();
    const answer = await publish('lost');
    assert.equal(answer.body.data.version_id, before.body.data.version_id);
    assert.equal(published(), calls);

    const at = { ...scope, path: '/api/v1/deployments', key: 'made' };
    const create = JSON.stringify({ name: 'made once' });
    await beginIdempotent(
      api.database.db,
      at,
      fingerprint(new URL(`http://x${at.path}`), Buffer.from(create)),
      -1,
    );
    await recordSubject(api.database.db, at, { deployment_id: deployment.id });
    const made = await api.ask('POST', '/deployments', {
      raw: create,
      headers: { 'idempotency-key': 'made' },
    });
    assert.equal(made.body.data.id, deployment.id);
  });

  test('a stored answer with a key in it is sealed', async () => {
    const made = () =>
      api.ask('POST', '/api-keys', { body: { name: 'once' }, headers: { 'idempotency-key': 'key' } });
    const { key } = (await made()).body.data;
    assert.equal((await made()).body.data.key, key);
    const rows = await api.database.db.selectFrom('idempotency_keys').select('answer').execute();
    assert.ok(rows.every((row) => !row.answer?.includes(key)));
  });
});

describe('events', () => {
  const stream = (query: string, headers: Record<string, string> = {}, key = api.key) =>
    api.app.request(`/api/v1/events/stream${query}`, {
      headers: { authorization: `Bearer ${key}`, ...headers },
    });
  const emit = (n: number, type: 'deployment.live' | 'sandbox.created' = 'deployment.live') =>
    api.database.db.transaction().execute((trx) =>
      appendEvent(trx, {
        id: newId('evt'),
        tenant_id: api.tenant_id,
        type,
        deployment_id: deployment.id,
        data: { n },
      }),
    );

  test('live, filtered by globs, and resumed after a break without gap or repetition', async () => {
    const reading = readFrames(await stream('?types=deployment.*'), (frames) => frames.length >= 2);
    await emit(1);
    await emit(2, 'sandbox.created');
    await emit(3);
    const first = await reading;
    assert.deepEqual(
      first.map((f) => [f.event, f.data.n]),
      [
        ['deployment.live', 1],
        ['deployment.live', 3],
      ],
    );
    assert.equal(first[0]!.data.type, 'deployment.live');
    await emit(4);
    const resumed = await readFrames(
      await stream('', { 'last-event-id': first[0]!.id }),
      (frames) => frames.length >= 3,
    );
    assert.deepEqual(
      resumed.map((f) => f.data.n),
      [2, 3, 4],
    );
    const whole = await readFrames(
      await stream('?last_event_id=evt_unknown'),
      (frames) => frames.length >= 3,
    );
    assert.equal(whole[0]!.data.seq, 1);
    assert.equal((await api.ask('GET', '/events/stream?types=a%20b')).status, 422);
  });

  test('a key of one project hears of that project only', async () => {
    const inside = (await api.ask('POST', '/deployments', { body: { name: 'heard', project_slug: 'two' } }))
      .body.data;
    const key = await api.makeKey({ scopes: ['deployments:read'], project_id: inside.project_id });
    const [frame] = await readFrames(await stream('?from=start', {}, key), (frames) => frames.length >= 1);
    assert.equal(frame!.data.deployment_id, inside.id);
  });
});

describe('the rest', () => {
  test('tenant, gc, doctor', async () => {
    assert.deepEqual((await api.ask('GET', '/platform/tenants/current')).body.data.slug, 'mine');
    assert.equal((await api.ask('POST', '/gc?dry_run=true')).body.data.dry_run, true);
    const key = await api.makeKey({ scopes: ['deployments:write'] });
    assert.equal((await api.ask('GET', '/doctor', { key })).status, 403);
  });

  test('over a socket: health, documents, an upload too large, and a close that ends streams', async () => {
    const served = await serveApi(api.app, { host: '127.0.0.1', port: 0 }, api.deps);
    const json = async (at: string): Promise<Json> => (await fetch(served.url + at)).json();
    assert.equal((await json('/health')).status, 'ok');
    assert.equal((await json('/openapi.json')).openapi, '3.1.0');
    const docs = await fetch(`${served.url}/docs`);
    assert.match(docs.headers.get('content-security-policy')!, /default-src 'none'/);
    assert.match(await docs.text(), /\/deployments\/\{id\}\/publish/);
    const status = await new Promise((resolve, reject) => {
      const request = http.request(`${served.url}/api/v1/sandboxes`, {
        method: 'POST',
        headers: { authorization: `Bearer ${api.key}`, 'content-length': 10_000_000 },
      });
      request.on('response', (response) => resolve(response.statusCode));
      request.on('error', reject);
      request.write('x');
    });
    assert.equal(status, 413, 'refused by its declared length, before it is sent');
    const stream = await fetch(`${served.url}/api/v1/events/stream`, {
      headers: { authorization: `Bearer ${api.key}` },
    });
    const reading = readFrames(stream).catch(() => 'ended');
    await served.close();
    assert.ok(await reading);
    await assert.rejects(serveApi(api.app, { host: '192.0.2.1', port: 1 }, api.deps));
  });
});
