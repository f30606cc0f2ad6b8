import assert from 'node:assert/strict';
import path from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import { imageOf, readTar } from '../release/oci/layers.fixtures.ts';
import { fileObjectStore } from '../store/objects/files.ts';
import { openTestApi, sandboxAndDeployment, type TestApi } from './testing/api.ts';
import { publishing } from './testing/publishing.ts';

let api: TestApi;
let image_id: string;
let plain_id: string;
let digest: string;

before(async () => {
  api = await openTestApi();
  const { sandbox, deployment } = await sandboxAndDeployment(api);
  const { live } = publishing(api, sandbox.id);
  const first = await live(deployment.id);
  const second = await live(deployment.id);
  const releases = (await api.ask('GET', `/deployments/${deployment.id}/releases`)).body.data;
  assert.ok(first.version_id !== second.version_id && releases.length === 2);
  plain_id = releases[0].id;
  image_id = releases[1].id;
  ({ digest } = await imageOf(fileObjectStore(path.join(api.engine.dir, 'objects')), [
    [{ name: 'workspace/app.js', content: 'hello' }],
  ]));
  const hex = digest.slice('sha256:'.length);
  await api.database.db
    .updateTable('releases')
    .set({ kind: 'oci', sha256: hex, object_key: `blobs/sha256/${hex}` })
    .where('id', '=', image_id)
    .execute();
});
after(() => api.close());

const get = (id: string, key = api.key) =>
  api.app.request(`/api/v1/releases/${id}/image`, { headers: { authorization: `Bearer ${key}` } });

describe('images of releases', () => {
  test('are given as an image layout', async () => {
    const answer = await get(image_id);
    assert.equal(answer.status, 200);
    assert.equal(answer.headers.get('content-type'), 'application/x-tar');
    const files = await readTar(await buffer(Readable.fromWeb(answer.body as never)));
    assert.equal(JSON.parse(files.get('index.json')!.content).manifests[0].digest, digest);
    assert.ok(files.has('oci-layout') && files.has(`blobs/sha256/${digest.slice('sha256:'.length)}`));
  });

  test('are shown as of kind oci', async () => {
    const { body } = await api.ask('GET', `/releases/${image_id}`);
    assert.deepEqual([body.data.kind, `sha256:${body.data.sha256}`], ['oci', digest]);
  });

  test('a release that is no image says what makes images; another tenant sees none', async () => {
    const refused = await api.ask('GET', `/releases/${plain_id}/image`);
    assert.deepEqual([refused.status, refused.body.error.code], [422, 'UNSUPPORTED']);
    assert.match(refused.body.error.message, /Dockerfiles/);
    assert.equal((await get(image_id, api.foreign_key)).status, 404);
    assert.equal((await get('rel_nothing')).status, 404);
  });

  test('are pushed only where the operator allows it, by keys that may publish', async () => {
    const push = (reference: unknown, key = api.key) =>
      api.ask('POST', `/releases/${image_id}/push`, { body: { reference, password: 'hush-hush' }, key });
    const elsewhere = await push('registry.example.com/shop:1');
    assert.deepEqual([elsewhere.status, elsewhere.body.error.code], [403, 'FORBIDDEN']);
    assert.match(elsewhere.body.error.message, /--push-registries .*registry\.example\.com/);
    assert.equal((await push('Not A Reference')).status, 422);
    assert.equal((await push(7)).status, 422);
    assert.equal(
      (await push('127.0.0.1:1/shop', await api.makeKey({ scopes: ['deployments:read'] }))).status,
      403,
    );
    // Allowed, but nobody listens there.
    const nobody = await push('127.0.0.1:1/shop:1');
    assert.ok(
      nobody.status >= 400 && nobody.body.error.message.includes('127.0.0.1:1'),
      JSON.stringify(nobody.body),
    );
    assert.ok(!JSON.stringify(nobody.body).includes('hush-hush'));
  });
});
