/** Strict answers: what does not fit its schema is our fault, told as one, and only when asked for. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { openTestApi, type TestApi } from './testing/api.ts';

let api: TestApi;
before(async () => {
  api = await openTestApi();
});
after(() => api.close());

test('an answer of another type, or with a field its schema does not know, is a logged 500', async () => {
  const { engine } = api;
  const real = engine.publicUrl;
  engine.publicUrl = (() => 5) as never;
  const wrong = await api.ask('POST', '/deployments', { body: { name: 'odd' } });
  assert.deepEqual([wrong.status, wrong.body.code], [500, 'INTERNAL_ERROR']);
  assert.match(api.logged.at(-1)!, /createDeployment 201 does not fit/);
  assert.doesNotMatch(JSON.stringify(wrong.body), /does not fit/);

  api.deps.strict_answers = false;
  assert.equal((await api.ask('GET', '/deployments')).body.data[0].public_url, 5);
  api.deps.strict_answers = true;
  engine.publicUrl = real;
  const gc = engine.gc;
  engine.gc = async (options) => ({ ...(await gc.call(engine, options)), secret: 'x' });
  assert.equal((await api.ask('POST', '/gc')).status, 500);
  assert.match(api.logged.at(-1)!, /fields its schema does not know/);
});
