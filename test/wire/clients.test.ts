/** The habits of the five existing clients (wire contract, section 3) against the API. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { openTestApi, readFrames, sandboxAndDeployment, type TestApi } from '../../src/api/testing/api.ts';
import {
  CliClient,
  ClientError,
  ElixirClient,
  type Fetch,
  GoClient,
  type Json,
  PythonClient,
  pythonModel,
  TypeScriptClient,
} from './clients.ts';

let api: TestApi;
let sandbox: Json;
let deployment: Json;
let options: { base: string; key: string; fetch: Fetch };
before(async () => {
  api = await openTestApi();
  ({ sandbox, deployment } = await sandboxAndDeployment(api));
  options = { base: 'http://kiln', key: api.key, fetch: async (url, init) => api.app.request(url, init) };
});
after(() => api.close());

const publishes = () => api.engine.calls.filter((call) => call === 'publish').length;
const refused = async (work: Promise<unknown>): Promise<ClientError> => {
  const error = await work.then(
    () => null,
    (error: unknown) => error,
  );
  assert.ok(error instanceof ClientError, String(error));
  return error;
};
/** Loses the first answer after the server has done its work, as a broken connection behind a proxy does. */
const losing = (): Fetch => {
  let n = 0;
  return async (url, init) => {
    const answer = await api.app.request(url, init);
    return n++ === 0 ? new Response('bad gateway', { status: 502 }) : answer;
  };
};

describe('TypeScript', () => {
  test('a publish whose answer is lost is sent again with its key, and happens once', async () => {
    const client = new TypeScriptClient({ ...options, fetch: losing() });
    const before_count = publishes();
    const done = await client.call('POST', `/deployments/${deployment.id}/publish`, {
      source_sandbox_id: sandbox.id,
      promote: false,
    });
    assert.deepEqual([client.tries, publishes() - before_count], [2, 1]);
    assert.ok(done.deployment.id && done.version.id);
  });

  test('answers within its 30 s, empty PATCH, DELETE with a body, errors by status and code', async () => {
    const client = new TypeScriptClient(options);
    assert.equal((await client.call('PATCH', `/deployments/${deployment.id}`, {})).id, deployment.id);
    const made = await client.call('POST', '/deployments', { name: 'to go' });
    assert.equal((await client.call('DELETE', `/deployments/${made.id}`)).deleted, true);
    const gone = await refused(client.call('GET', '/deployments/dep_none'));
    assert.deepEqual([gone.kind, gone.code], ['NotFound', 'NOT_FOUND']);
    assert.match(gone.request_id!, /^req_/);
    const wrong = await refused(
      new TypeScriptClient({ ...options, key: 'msk_no' }).call('GET', '/deployments'),
    );
    assert.deepEqual([wrong.kind, wrong.code], ['Auth', 'invalid_token']);
    assert.equal(
      (await client.call('POST', '/sandboxes', { template_id: 'miosa-sandbox' })).state,
      'running',
    );
  });

  test('promotes a release with its fixed key, A then B then A', async () => {
    const client = new TypeScriptClient(options);
    const releases: string[] = [];
    for (const promote of [true, true]) {
      const body = { source_sandbox_id: sandbox.id, promote };
      const { version } = await client.call('POST', `/deployments/${deployment.id}/publish`, body);
      await api.engine.finish(version.id);
      const ready = await client.call('GET', `/deployments/${deployment.id}/versions/${version.id}`);
      releases.push(ready.release_id);
    }
    for (const id of [releases[0]!, releases[1]!, releases[0]!]) {
      const at = `/deployments/${deployment.id}/releases/${id}/promote`;
      const now = await client.call('POST', at, {}, `promote:${deployment.id}:${id}`);
      assert.equal(now.active_release_id, id);
    }
  });
});

describe('Python', () => {
  test('its strict models take every row', async () => {
    const client = new PythonClient(options);
    const at = `/deployments/${deployment.id}`;
    const body = { source_sandbox_id: sandbox.id };
    const fresh = await client.call('POST', `${at}/publish`, body);
    const check = (published: Json) => {
      pythonModel('deployment', ['id', 'tenant_id', 'name', 'slug', 'state'], published.deployment);
      const needed = ['id', 'deployment_id', 'tenant_id', 'version_number', 'kind', 'state'];
      pythonModel('version', needed, published.version);
      for (const service of published.services)
        pythonModel('service', ['id', 'deployment_id', 'tenant_id', 'type', 'state'], service);
    };
    check(fresh);
    await api.engine.finish(fresh.version.id);
    check(await client.call('POST', `${at}/publish`, body));
    for (const row of await client.call('GET', `${at}/releases`))
      pythonModel('release', ['id', 'deployment_version_id', 'tenant_id', 'kind'], row);
    for (const row of await client.call('GET', `${at}/builds`))
      pythonModel('build', ['id', 'deployment_id', 'state'], row);
    for (const row of await client.call('GET', `${at}/versions`))
      pythonModel('version', ['id', 'deployment_id', 'tenant_id', 'version_number', 'kind', 'state'], row);
    const again = await client.call('POST', `${at}/redeploy`, {});
    pythonModel('deployment', ['id', 'tenant_id', 'name', 'slug', 'state'], again);
    pythonModel('build', ['id', 'deployment_id', 'state'], again);
    const domain = await client.call('POST', `${at}/domains`, { domain: 'py.example.com' });
    pythonModel('domain', ['id', 'tenant_id', 'domain', 'state'], domain);
  });

  test('bodies left out, errors by their nested envelope, the wait of a 429 from the body', async () => {
    const client = new PythonClient(options);
    assert.equal((await client.call('PATCH', `/deployments/${deployment.id}`, {})).id, deployment.id);
    assert.ok((await client.call('POST', `/deployments/${deployment.id}/rollback`, {})).active_version_id);
    const wrong = await refused(client.call('POST', '/deployments', { name: 5 }));
    assert.deepEqual([wrong.kind, wrong.code], ['Validation', 'VALIDATION_ERROR']);
    const slow = new PythonClient({ ...options, key: await api.makeKey({ scopes: ['*'], rpm: 1 }) });
    await slow.call('GET', '/deployments');
    const limited = await refused(slow.call('GET', '/deployments'));
    assert.ok(limited.retry_after! >= 1 && limited.retry_after! <= 60);
    assert.equal(slow.tries, 5, 'one, then one and three retries');
    assert.equal(
      (await client.call('GET', `/deployments/${deployment.id}/logs?lines=5`)).lines.length >= 0,
      true,
    );
  });
});

describe('Go', () => {
  test('everything of a deployment is under data, lists too; creation by project; flat messages', async () => {
    const client = new GoClient(options);
    const { project_id } = await client.call('GET', `/deployments/${deployment.id}`);
    const made = await client.call('POST', `/projects/${project_id}/deployments`, {
      name: 'go app',
      source_type: 'sandbox',
    });
    assert.equal(made.project_id, project_id);
    for (const list of ['versions', 'releases', 'builds', 'env', 'domains', 'runtime-instances'])
      assert.ok(Array.isArray(await client.call('GET', `/deployments/${made.id}/${list}`)), list);
    assert.ok(Array.isArray(await client.call('GET', '/sandboxes')));
    const bridge = await client.call('POST', `/sandboxes/${sandbox.id}/deploy`, {
      source_sandbox_id: sandbox.id,
      kind: 'auto',
      environment: 'production',
      data_services: [],
    });
    assert.ok(bridge.public_url && bridge.deployment.id);
    const gone = await refused(client.call('GET', '/deployments/dep_none'));
    assert.match(gone.message, /^There is no deployment/);
    const unsupported = await refused(client.call('POST', `/sandboxes/${sandbox.id}/expose`, {}));
    assert.deepEqual([unsupported.status, client.tries], [422, client.tries], 'never a 5xx it would repeat');
  });
});

describe('Elixir', () => {
  test('lower-case key name replays; the flat code is read', async () => {
    const client = new ElixirClient(options);
    const create = () => client.call('POST', '/deployments', { name: 'ex' }, 'ex-key');
    assert.equal((await create()).id, (await create()).id);
    assert.equal((await refused(client.call('GET', '/deployments/none'))).code, 'NOT_FOUND');
  });
});

describe('the CLI', () => {
  const client = () => new CliClient(options);

  test('a JSON content type without a body, everywhere', async () => {
    const cli = client();
    assert.ok((await cli.call('GET', `/deployments/${deployment.id}`)).data.id);
    const again = await cli.call('POST', `/deployments/${deployment.id}/redeploy`);
    assert.equal(again.data.state, 'building');
    const made = await cli.call('POST', '/deployments', { name: 'cli', env: { A: '1' } });
    assert.equal((await cli.call('DELETE', `/deployments/${made.data.id}/env/A`)).deleted ?? true, true);
    const { data } = await cli.call('GET', `/deployments/${deployment.id}/versions`);
    const ready = data.find((v: Json) => v.state === 'archived');
    const promoted = await cli.call('POST', `/deployments/${deployment.id}/versions/${ready.id}/promote`);
    assert.equal(promoted.data.active_version_id, ready.id);
  });

  test('the tenant has a name and a slug, scale and resize answer, domains by name', async () => {
    const cli = client();
    const tenant = (await cli.call('GET', '/platform/tenants/current')).data;
    assert.ok(tenant.name !== '' && tenant.slug !== '');
    const at = `/deployments/${deployment.id}`;
    assert.equal((await cli.call('POST', `${at}/scale`, { instances: 2 })).data.desired_replicas, 2);
    assert.equal((await cli.call('POST', `${at}/resize`, { size: 'medium' })).data.size, 'medium');
    const added = (
      await cli.call('POST', '/domains', { domain: 'cli.example.com', deployment_id: deployment.id })
    ).data;
    for (const field of ['id', 'fqdn', 'status', 'deployment_id', 'verification_target', 'instructions'])
      assert.equal(typeof added[field], 'string', field);
    assert.ok(added.dns_records.every((r: Json) => r.type && r.name && r.value));
    assert.equal((await cli.call('POST', '/domains/cli.example.com/verify')).data.status, 'failed');
  });

  test('rollback by release, streams by Accept, field errors, retryable or not', async () => {
    const cli = client();
    const at = `/deployments/${deployment.id}`;
    const releases = (await cli.call('GET', `${at}/releases`)).data;
    const back = await cli.call('POST', `${at}/rollback`, { release_id: releases.at(-1).id });
    assert.equal(back.data.active_release_id, releases.at(-1).id);
    const { build_id } = (await cli.call('GET', `${at}/versions?state=archived`)).data[0];
    const accept = 'text/event-stream, application/json, */*';
    const stream = await cli.call('GET', `${at}/builds/${build_id}/logs`, undefined, accept);
    const done = (await readFrames(stream)).at(-1)!;
    assert.equal(done.event, 'done');
    assert.equal(done.data.result.state, 'succeeded');
    const wrong = await refused(cli.call('POST', '/deployments', { name: '' }));
    assert.deepEqual([wrong.code, wrong.kind], ['VALIDATION_ERROR', 'Final']);
  });
});
