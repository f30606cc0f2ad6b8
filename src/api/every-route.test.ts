/**
 * What holds for every route there is, so that none can be forgotten: no key, too little scope, another tenant's key,
 * and every list read page by page to its end in both ways.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { z } from '@hono/zod-openapi';
import type { Route } from './contract/route.ts';
import { ENDPOINTS } from './routes.ts';
import { type Json, openTestApi, sandboxAndDeployment, type TestApi } from './testing/api.ts';

let api: TestApi;
/** Ids of objects of the first tenant, by the parameter's name. */
let known: Record<string, string>;
const routes = ENDPOINTS.map(({ route }) => route);
const make = async (method: string, at: string, body?: unknown): Promise<Json> => {
  const answer = await api.ask(method, at, body === undefined ? {} : { body });
  assert.ok(answer.status < 300, `${method} ${at}: ${JSON.stringify(answer.body)}`);
  return answer.body.data ?? answer.body;
};

before(async () => {
  api = await openTestApi();
  const { sandbox, deployment } = await sandboxAndDeployment(api);
  const at = `/deployments/${deployment.id}`;
  for (let n = 0; n < 5; n++) {
    const { version } = await make('POST', `${at}/publish`, { source_sandbox_id: sandbox.id });
    await api.engine.finish(version.id);
    await make('POST', '/sandboxes', {});
    await make('POST', `/sandboxes/${sandbox.id}/snapshots`, {});
    await make('POST', '/deployments', { name: `d ${n}` });
    await make('POST', `${at}/domains`, { domain: `n${n}.example.com` });
    await make('POST', '/api-keys', { name: `k ${n}` });
    await make('POST', '/webhooks', { url: 'https://example.com', events: [] });
  }
  const hook = await make('POST', '/webhooks', { url: 'https://example.com/x', events: [] });
  for (let n = 0; n < 5; n++) await make('POST', `/webhooks/${hook.id}/test`);
  const agent = await api.makeKey({ scopes: ['deployments:propose'] });
  const versions: Json[] = await make('GET', `${at}/versions`);
  for (const { id } of versions)
    await api.ask('POST', `${at}/versions/${id}/promote`, { body: {}, key: agent });
  await instances(deployment, versions[0]);
  const first = async (path: string) => (await make('GET', path))[0].id as string;
  known = {
    sandbox: sandbox.id,
    deployment: deployment.id,
    version_id: versions[0].id,
    release_id: versions[0].release_id,
    build_id: versions[0].build_id,
    snapshot_id: await first(`/sandboxes/${sandbox.id}/snapshots`),
    domain_id: await first(`${at}/domains`),
    instance_id: await first(`${at}/runtime-instances`),
    approval_id: await first('/approvals'),
    webhook_id: hook.id,
    delivery_id: await first(`/webhooks/${hook.id}/deliveries`),
    api_key: await first('/api-keys'),
    project_id: deployment.project_id,
    operation_id: (await api.database.db.selectFrom('operations').select('id').executeTakeFirstOrThrow()).id,
    fqdn: 'n0.example.com',
    name: 'shop',
    path: 'index.html',
    key: 'A',
  };
});
after(() => api.close());

/** Two alive, of which one is older than the stopped ones. */
async function instances(deployment: Json, version: Json): Promise<void> {
  for (let n = 0; n < 6; n++)
    await api.database.db
      .insertInto('instances')
      .values({
        id: api.deps.newId('ins'),
        tenant_id: deployment.tenant_id,
        deployment_id: deployment.id,
        version_id: version.id,
        release_id: version.release_id,
        operation_id: null,
        engine_id: null,
        replica: n,
        role: 'live',
        state: n === 0 || n === 5 ? 'healthy' : 'stopped',
        host: null,
        port: null,
        pid: null,
        next_start_at: null,
        warm_until: null,
        failure: null,
        last_health_check_at: null,
        started_at: null,
        stopped_at: n === 0 || n === 5 ? null : new Date(),
      } as never)
      .execute();
}

function filled(route: Route): string {
  return route.path.replace(/\{(\w+)\*?\}/g, (_, name: string) => {
    if (name !== 'id') return known[name] ?? 'none';
    if (route.path.startsWith('/sandboxes')) return known.sandbox!;
    return route.path.startsWith('/api-keys') ? known.api_key! : known.deployment!;
  });
}

const sent = (route: Route) => (route.method === 'get' || route.takes === 'raw' ? {} : { body: {} });

describe('every route', () => {
  test('needs a key', async () => {
    for (const route of routes) {
      const o = { ...sent(route), headers: { authorization: '' } };
      const { status, body } = await api.ask(route.method.toUpperCase(), filled(route), o);
      assert.deepEqual([status, body.code], [401, 'invalid_token'], route.id);
    }
  });

  test('needs its scope, and says which', async () => {
    const key = await api.makeKey({ scopes: ['data:write'] });
    for (const route of routes) {
      assert.notEqual(route.scope, null, route.id);
      const { status, body } = await api.ask(route.method.toUpperCase(), filled(route), {
        ...sent(route),
        key,
      });
      assert.deepEqual([status, body.code], [403, 'insufficient_scope'], route.id);
      assert.equal(body.error.details.needed_scope, route.scope, route.id);
    }
  });

  test("does not know another tenant's objects", async () => {
    const before_all = await snapshotOfRows();
    for (const route of routes.filter(({ path }) => path.includes('{'))) {
      if (route.tag === 'Not supported') continue;
      const o = { ...sent(route), key: api.foreign_key };
      const { status, body } = await api.ask(route.method.toUpperCase(), filled(route), o);
      // A body that this route refuses is refused before anything is looked up.
      const is_refused = status === 404 || (status === 422 && body.code === 'VALIDATION_ERROR');
      const is_missing = status === 400 && body.code === 'MISSING_PARAM';
      assert.ok(is_refused || is_missing, `${route.id}: ${status} ${JSON.stringify(body)}`);
      assert.ok(!JSON.stringify(body).includes('hello'), route.id);
    }
    assert.deepEqual(await snapshotOfRows(), before_all);
  });
});

async function snapshotOfRows(): Promise<unknown> {
  const { db } = api.database;
  const rows = await Promise.all([
    db.selectFrom('sandboxes').select(['id', 'state', 'name']).orderBy('id').execute(),
    db.selectFrom('deployments').select(['id', 'deleted_at', 'active_version_id']).orderBy('id').execute(),
    db.selectFrom('webhooks').select(['id']).orderBy('id').execute(),
    db.selectFrom('domains').select(['id', 'state', 'removed_at']).orderBy('id').execute(),
    db.selectFrom('approvals').select(['id', 'state']).orderBy('id').execute(),
    db.selectFrom('sandbox_snapshots').select(['id', 'deleted_at']).orderBy('id').execute(),
  ]);
  return rows;
}

describe('every list', () => {
  const lists = routes.filter(
    ({ answers }) =>
      answers[200]?.schema instanceof z.ZodObject && 'next_cursor' in answers[200].schema.shape,
  );

  test('is read to its end by cursor and by page, the same rows in the same order', async () => {
    assert.ok(lists.length >= 12);
    for (const route of lists) {
      const at = filled(route);
      const whole = await api.ask('GET', `${at}?limit=200`);
      const ids: string[] = whole.body.data.map((row: Json) => row.id);
      assert.equal(whole.body.next_cursor, null, route.id);
      assert.ok(ids.length >= 5, `${route.id} has ${ids.length} rows`);
      const by_cursor: string[] = [];
      for (let cursor: string | null = ''; cursor !== null; ) {
        const { body } = await api.ask('GET', `${at}?limit=2${cursor === '' ? '' : `&cursor=${cursor}`}`);
        by_cursor.push(...body.data.map((row: Json) => row.id));
        cursor = body.next_cursor;
        assert.ok(by_cursor.length <= ids.length, route.id);
      }
      assert.deepEqual(by_cursor, ids, route.id);
      const by_page: string[] = [];
      for (let page = 1; page <= Math.ceil(ids.length / 2); page++)
        by_page.push(
          ...(await api.ask('GET', `${at}?page=${page}&page_size=2`)).body.data.map((row: Json) => row.id),
        );
      assert.deepEqual(by_page, ids, route.id);
      const { status, body } = await api.ask('GET', `${at}?cursor=bm9uZQ`);
      assert.deepEqual([status, body.code], [400, 'INVALID_CURSOR'], route.id);
      for (const bad of ['limit=0', 'limit=201', 'limit=x', 'page=0'])
        assert.equal((await api.ask('GET', `${at}?${bad}`)).status, 422, `${route.id} ${bad}`);
    }
  });
});

test('a key cannot make one that lives longer or asks more often than itself', async () => {
  const ends = new Date(Date.now() + 60_000);
  const maker = await api.makeKey({ scopes: ['keys:write'], rpm: 100, expires_at: ends });
  const make = (more: object) =>
    api.ask('POST', '/api-keys', { key: maker, body: { name: 'child', scopes: ['keys:write'], ...more } });
  const child = (await make({ rate_limit_rpm: 5000 })).body.data;
  assert.deepEqual([child.rate_limit_rpm, child.expires_at], [100, ends.toISOString()]);
  const sooner = new Date(Date.now() + 30_000).toISOString();
  assert.equal((await make({ expires_at: sooner, expires_in_sec: 50 })).body.data.expires_at, sooner);
  assert.equal((await make({ expires_at: '2999-01-01T00:00:00Z' })).body.data.expires_at, ends.toISOString());
  for (const expires_at of ['2001-01-01T00:00:00Z', 'tomorrow', 5]) {
    const { status, body } = await make({ expires_at });
    assert.deepEqual([status, Object.keys(body.errors)], [422, ['expires_at']]);
  }
});
