import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { openTestApi, sandboxAndDeployment, type TestApi } from './testing/api.ts';

let api: TestApi;
let sandbox: { id: string };
let deployment: { id: string };
before(async () => {
  api = await openTestApi();
  ({ sandbox, deployment } = await sandboxAndDeployment(api));
});
after(() => api.close());

const exec = (body: object) => api.ask('POST', `/sandboxes/${sandbox.id}/exec`, { body });
/** `count` variables of 60 KiB. */
const large = (count: number, name = 'LARGE') =>
  Object.fromEntries(Array.from({ length: count }, (_, n) => [`${name}_${n}`, 'x'.repeat(60 * 1024)]));

test('the largest environment that is taken is one that programs can be started with', async () => {
  const set = await api.ask('PUT', `/sandboxes/${sandbox.id}/env`, { body: { env: large(8, 'SANDBOX') } });
  assert.equal(set.status, 200, JSON.stringify(set.body));
  const ran = await exec({ command: 'env | wc -c', env: large(8) });
  assert.equal(ran.status, 200, JSON.stringify(ran.body));
  assert.ok(Number(ran.body.stdout) > 16 * 60 * 1024);
});

test('a larger one is refused, by its bytes, saying what to do', async () => {
  const refused = [
    await exec({ command: 'true', env: large(9) }),
    await exec({ command: 'true', env: { ...large(7), A: 'ä'.repeat(32_000), B: 'ä'.repeat(32_000) } }),
    await api.ask('PUT', `/sandboxes/${sandbox.id}/env`, { body: { env: large(1, 'MORE') } }),
    await api.ask('POST', '/sandboxes', { body: { env: large(9) } }),
    await api.ask('POST', '/deployments', { body: { name: 'Large', env: large(9) } }),
  ];
  for (const { status, body } of refused) {
    assert.equal(status, 422, JSON.stringify(body).slice(0, 300));
    assert.match(body.errors.env[0], /bytes altogether.*at most 524288.*a file/);
  }
});

test('variables of a deployment are counted with those that it has', async () => {
  const set = (env: object) => api.ask('POST', `/deployments/${deployment.id}/env`, { body: { env } });
  assert.equal((await set(large(5))).status, 200);
  assert.equal((await set(large(5))).status, 200, 'the same again is no more than before');
  const refused = await set(large(5, 'MORE'));
  assert.equal(refused.status, 422);
  assert.match(refused.body.errors.env[0], /bytes altogether/);
});

test('a command is as long as an argument can be', async () => {
  const most = 128 * 1024 - 1;
  const ran = await exec({ command: `true ${'x'.repeat(most - 5)}` });
  assert.equal(ran.body.exit_code, 0, JSON.stringify(ran.body).slice(0, 300));
  for (const command of [`true ${'x'.repeat(most - 4)}`, `true ${'ä'.repeat(most / 2)}`]) {
    const refused = await exec({ command });
    assert.equal(refused.status, 422, JSON.stringify(refused.body).slice(0, 300));
    assert.match(refused.body.errors.command[0], /131071 bytes.*a file/);
  }
});
