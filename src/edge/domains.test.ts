import assert from 'node:assert/strict';
import { test } from 'node:test';
import { appInstance, appRoute, ask, edgeFor } from './fixture.ts';

test('a custom domain is served, its other name redirects with path and port, nobody else is touched', async (t) => {
  const instance = await appInstance(t, 'ins_1', (request, response) => response.end(request.url));
  const mine = { hosts: ['shop.example'], redirects: [{ from: 'www.shop.example', to: 'shop.example' }] };
  // Another one's own host wins over a redirect to somewhere else.
  const other = appRoute([instance], { slug: 'other', hosts: ['www.other.example'] });
  const greedy = appRoute([instance], {
    slug: 'greedy',
    redirects: [{ from: 'www.other.example', to: 'greedy.example' }],
  });
  const { edge } = await edgeFor(t, [appRoute([instance], mine), greedy, other]);
  const get = (host: string, path = '/') => ask(edge.port, path, { headers: { host } });
  assert.equal((await get('SHOP.example:80', '/a')).body, '/a');
  const moved = await get('www.shop.example:8080', '/a//b?c=1');
  assert.deepEqual([moved.status, moved.headers.location], [301, '//shop.example:8080/a//b?c=1']);
  assert.equal(
    (await get('www.shop.example', '//evil.example')).headers.location,
    '//shop.example//evil.example',
  );
  assert.equal((await get('www.other.example', '/b')).body, '/b');
  assert.equal((await get('unknown.example')).status, 404);
});
