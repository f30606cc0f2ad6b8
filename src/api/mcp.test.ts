/** The MCP server over HTTP and over lines, against the API with its fake engine. */
import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { after, before, test } from 'node:test';
import { serveStdio } from '../mcp/stdio.ts';
import { type Json, openTestApi, sandboxAndDeployment, type TestApi } from './testing/api.ts';

let api: TestApi;
let sandbox: Json;
let deployment: Json;
before(async () => {
  api = await openTestApi();
  ({ sandbox, deployment } = await sandboxAndDeployment(api));
});
after(() => api.close());

let next_id = 1;
const rpc = async (method: string, params: object = {}, key = api.key): Promise<Json> => {
  const answer = await api.ask('POST', '/mcp', {
    key,
    body: { jsonrpc: '2.0', id: next_id++, method, params },
  });
  assert.equal(answer.status, 200, JSON.stringify(answer.body));
  return answer.body;
};
const call = async (name: string, input: object, key = api.key) => {
  const { result } = await rpc('tools/call', { name, arguments: input }, key);
  const { text } = result.content[0];
  return {
    is_error: result.isError,
    text,
    data: text.startsWith('{') || text.startsWith('[') ? JSON.parse(text) : null,
  };
};

test('initialize, ping, tools/list, and what is not JSON-RPC', async () => {
  const { result } = await rpc('initialize', { protocolVersion: '2025-03-26' });
  assert.equal(result.protocolVersion, '2025-03-26');
  assert.deepEqual((await rpc('ping')).result, {});
  const { tools } = (await rpc('tools/list')).result;
  assert.deepEqual(
    tools.map((tool: Json) => tool.name),
    ['publish', 'list', 'status', 'logs', 'explain_failure', 'rollback'],
  );
  for (const tool of tools) assert.match(tool.description, /Next|next_step|again/, tool.name);
  assert.equal((await rpc('nothing')).error.code, -32_601);
  const post = (raw: string) => api.ask('POST', '/mcp', { raw });
  assert.deepEqual([(await post('{')).status, (await post('{')).body.error.code], [400, -32_700]);
  assert.equal((await post('{"jsonrpc":"2.0","method":"notifications/initialized"}')).status, 202);
  assert.equal((await api.ask('POST', '/mcp', { key: 'msk_no', raw: '{}' })).status, 401);
  const foreign = await api.ask('POST', '/mcp', { raw: '{}', headers: { origin: 'https://evil.example' } });
  assert.equal(foreign.status, 403);
});

test('publish, watch, explain, roll back', async () => {
  const first = await call('publish', { sandbox_id: sandbox.id, name: deployment.slug, wait_sec: 0 });
  assert.equal(first.data.version.state, 'created', first.text);
  assert.match(first.data.next_step, /status again/);
  await api.engine.finish(first.data.version.id);
  assert.match((await call('status', { deployment: deployment.slug })).data.next_step, /is live/);
  const second = await call('publish', { sandbox_id: sandbox.id, name: deployment.slug, wait_sec: 0 });
  await api.engine.finish(second.data.version.id, 'failed');
  assert.match((await call('status', { deployment: deployment.slug })).data.next_step, /explain_failure/);
  const why = await call('explain_failure', { deployment: deployment.slug });
  assert.deepEqual([why.data.code, why.data.next_step], ['BUILD_FAILED', 'Fix it.']);
  const third = await call('publish', { sandbox_id: sandbox.id, name: deployment.slug, wait_sec: 0 });
  await api.engine.finish(third.data.version.id);
  const back = await call('rollback', { deployment: deployment.slug });
  assert.equal(back.data.deployment.active_version_id, first.data.version.id);
  assert.equal((await call('logs', { deployment: deployment.slug })).is_error, false);
  assert.equal((await call('list', {})).data[0].name, deployment.slug);
});

test("errors are the API's: code, message, next step; scopes hold", async () => {
  const missing = await call('status', { deployment: 'nope' });
  assert.ok(missing.is_error && missing.text.startsWith('NOT_FOUND'));
  assert.match((await call('status', {})).text, /`deployment` is missing/);
  assert.match((await call('status', { deployment: 5 })).text, /must be a string/);
  const key = await api.makeKey({ scopes: ['deployments:propose'] });
  const refused = await call('rollback', { deployment: deployment.slug }, key);
  assert.match(refused.text, /^APPROVAL_REQUIRED: .*\nNext step: POST \/api\/v1\/approvals\/apr_/);
});

test('over lines: one answer per request, none for notifications, folders where there are some', async () => {
  const input = new PassThrough();
  const lines: Json[] = [];
  const port = {
    ask: async () => ({ status: 200, body: { data: [] } }),
    bringFolder: async () => ({ deployment_id: 'dep_1', sandbox_id: 'sbx_1' }),
  };
  const served = serveStdio(
    input,
    (line) => lines.push(JSON.parse(line)),
    port,
    new AbortController().signal,
  );
  input.write('{"jsonrpc":"2.0","id":1,"method":"tools/list"}\n\nnot json\n');
  input.write('{"jsonrpc":"2.0","method":"notifications/initialized"}\n');
  input.end('{"jsonrpc":"2.0","id":"b","method":"tools/call","params":{"name":"list"}}\n');
  await served;
  const byId = (id: unknown) => lines.find((line) => line.id === id);
  assert.equal(lines.length, 3);
  assert.equal(byId(1).result.tools[0].name, 'publish_folder');
  assert.equal(byId(null).error.code, -32_700);
  assert.equal(byId('b').result.content[0].text, '[]');
});
