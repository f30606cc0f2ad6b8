import assert from 'node:assert/strict';
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import http from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { ask, askRaw, edgeFor, HOST, MemoryObjects, sha256, staticRoute } from './fixture.ts';

const BIG = Buffer.alloc(1_500_000, '0123456789');
const FILES = {
  'index.html': '<h1>home</h1>',
  'docs/index.html': 'docs',
  '404.html': 'lost',
  'empty.txt': '',
  'digits.txt': '0123456789',
  'assets/app-3f2a1b9c.js': 'console.log(1)',
  'big.bin': BIG,
};

async function site(t: TestContext, options: { spa_fallback?: string; files?: Record<string, string> } = {}) {
  const dir = await mkdtemp(path.join(tmpdir(), 'kiln-static-'));
  t.after(() => rm(dir, { recursive: true }));
  const objects = new MemoryObjects(dir);
  const route = await staticRoute(objects, options.files ?? FILES, options);
  const { edge, logged, feed } = await edgeFor(t, [route], { objects });
  return { port: edge.port, edge, objects, route, logged, feed };
}

test('a file has its type, length, validator and cache rule', async (t) => {
  const { port } = await site(t);
  const home = await ask(port, '/');
  assert.equal(home.status, 200);
  assert.equal(home.body, FILES['index.html']);
  assert.equal(home.headers['content-type'], 'text/html; charset=utf-8');
  assert.equal(home.headers['content-length'], '13');
  assert.equal(home.headers['cache-control'], 'no-cache');
  assert.equal(home.headers.etag, `"${sha256(FILES['index.html']).slice(0, 32)}"`);
  assert.equal(home.headers['accept-ranges'], 'bytes');
  const script = await ask(port, '/assets/app-3f2a1b9c.js');
  assert.equal(script.headers['cache-control'], 'public, max-age=31536000, immutable');
  const empty = await ask(port, '/empty.txt');
  assert.deepEqual([empty.status, empty.headers['content-length'], empty.body], [200, '0', '']);
  const big = await ask(port, '/big.bin');
  assert.equal(sha256(big.body), sha256(BIG));
  assert.equal(big.headers['content-length'], String(BIG.length));
});

test('HEAD says what GET would, without a body', async (t) => {
  const { port } = await site(t);
  for (const url of ['/', '/big.bin', '/nope', '/assets/nope.js']) {
    const get = await ask(port, url);
    const head = await ask(port, url, { method: 'HEAD' });
    assert.equal(head.status, get.status, url);
    assert.equal(head.body, '');
    delete get.headers.date;
    delete head.headers.date;
    assert.deepEqual(head.headers, get.headers);
  }
});

test('304 when the validator matches', async (t) => {
  const { port } = await site(t);
  const etag = (await ask(port, '/')).headers.etag!;
  for (const value of [etag, `W/${etag}`, `"x", ${etag}`, '*']) {
    const answer = await ask(port, '/', { headers: { 'if-none-match': value } });
    assert.equal(answer.status, 304, value);
    assert.equal(answer.headers.etag, etag);
    assert.equal(answer.headers['cache-control'], 'no-cache');
    assert.equal(answer.body, '');
  }
  assert.equal((await ask(port, '/', { headers: { 'if-none-match': '"other"' } })).status, 200);
  assert.equal((await ask(port, '/nope', { headers: { 'if-none-match': '*' } })).status, 404);
});

test('of a list without end only the beginning is heard', async (t) => {
  const { port } = await site(t, { spa_fallback: 'index.html' });
  const etag = (await ask(port, '/')).headers.etag!;
  const held = (before: number) => ({ 'if-none-match': `${','.repeat(before)}${etag}` });
  assert.equal((await ask(port, '/', { headers: held(10) })).status, 304);
  assert.equal((await ask(port, '/', { headers: held(30_000) })).status, 200);
  const accept = (before: number) => ({ accept: `${','.repeat(before)}text/html` });
  assert.equal((await ask(port, '/users/1', { headers: accept(10) })).status, 200);
  assert.equal((await ask(port, '/users/1', { headers: accept(30_000) })).status, 404);
});

test('ranges', async (t) => {
  const { port } = await site(t);
  const range = async (value: string, more: Record<string, string> = {}) => {
    const answer = await ask(port, '/digits.txt', { headers: { range: value, ...more } });
    return [answer.status, answer.body, answer.headers['content-range']];
  };
  assert.deepEqual(await range('bytes=0-3'), [206, '0123', 'bytes 0-3/10']);
  assert.deepEqual(await range('bytes=7-'), [206, '789', 'bytes 7-9/10']);
  assert.deepEqual(await range('bytes=-2'), [206, '89', 'bytes 8-9/10']);
  assert.deepEqual(await range('bytes=8-99'), [206, '89', 'bytes 8-9/10']);
  assert.deepEqual(await range('bytes=-99'), [206, '0123456789', 'bytes 0-9/10']);
  assert.deepEqual(await range('bytes=10-'), [416, '', 'bytes */10']);
  assert.deepEqual(await range('bytes=-0'), [416, '', 'bytes */10']);
  for (const ignored of ['bytes=3-1', 'bytes=0-1,3-4', 'bytes=-', 'bytes=a-b', 'lines=0-1', '']) {
    assert.deepEqual(await range(ignored), [200, '0123456789', undefined], ignored);
  }
  const etag = (await ask(port, '/digits.txt')).headers.etag!;
  assert.equal((await range('bytes=0-3', { 'if-range': etag }))[0], 206);
  assert.equal((await range('bytes=0-3', { 'if-range': '"old"' }))[0], 200);
  const big = await ask(port, '/big.bin', { headers: { range: 'bytes=1000001-1400000' } });
  assert.equal(big.body, BIG.subarray(1_000_001, 1_400_001).toString());
  const empty = await ask(port, '/empty.txt', { headers: { range: 'bytes=0-' } });
  assert.equal(empty.status, 416);
});

test('folders redirect to their slash, with the query', async (t) => {
  const { port } = await site(t);
  const answer = await ask(port, '/docs?a=1');
  assert.equal(answer.status, 308);
  assert.equal(answer.headers.location, '/docs/?a=1');
  assert.equal((await ask(port, '/docs/?a=1')).body, 'docs');
});

test('404.html for pages, a plain 404 that is not stored for assets', async (t) => {
  const { port } = await site(t);
  const page = await ask(port, '/nope');
  assert.deepEqual([page.status, page.body, page.headers['cache-control']], [404, 'lost', 'no-store']);
  const asset = await ask(port, '/assets/nope.js', { headers: { accept: 'text/html,*/*' } });
  assert.equal(asset.status, 404);
  assert.equal(asset.headers['cache-control'], 'no-store');
  assert.equal(asset.headers['x-kiln-error'], 'NOT_FOUND');
  assert.equal((await ask(port, '/%2e%2e/x')).status, 400);
});

test('a single-page app', async (t) => {
  const { port } = await site(t, { spa_fallback: 'index.html' });
  const page = await ask(port, '/users/42', { headers: { accept: 'text/html,application/xhtml+xml' } });
  assert.deepEqual(
    [page.status, page.body, page.headers.vary],
    [200, FILES['index.html'], 'accept, accept-encoding'],
  );
  assert.equal(page.headers['cache-control'], 'no-cache');
  const asset = await ask(port, '/assets/gone.js');
  assert.deepEqual([asset.status, asset.headers['cache-control']], [404, 'no-store']);
  const data = await ask(port, '/api/users', { headers: { accept: 'application/json' } });
  assert.equal(data.status, 404);
  assert.equal(JSON.parse(data.body).error.code, 'NOT_FOUND');
});

test('other methods are refused, the body is read away, the connection stays usable', async (t) => {
  const { port } = await site(t);
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  t.after(() => agent.destroy());
  for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH']) {
    const answer = await ask(port, '/', { method, agent, body: 'x'.repeat(100_000) });
    assert.deepEqual([answer.status, answer.headers.allow], [405, 'GET, HEAD'], method);
  }
  assert.equal((await ask(port, '/', { agent })).status, 200);
});

test('a switch of the release is whole: each answer is of one of them', async (t) => {
  const { port, edge, feed, objects, route } = await site(t);
  const next = await staticRoute(objects, { 'index.html': 'new', 'big.bin': Buffer.alloc(3_000_000, 'n') });
  const slow = http.request({
    agent: false,
    port,
    host: '127.0.0.1',
    path: '/big.bin',
    headers: { host: HOST },
  });
  slow.end();
  const response = await new Promise<http.IncomingMessage>((resolve) => slow.once('response', resolve));
  feed.set([next]);
  await edge.waitForGeneration(feed.generation, 1000);
  assert.equal((await ask(port, '/')).body, 'new');
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk);
  assert.equal(sha256(Buffer.concat(chunks)), sha256(BIG));
  feed.set([route]);
  await edge.waitForGeneration(feed.generation, 1000);
  assert.equal((await ask(port, '/')).body, FILES['index.html']);
});

test('a release that is gone or too short is an error, never a short 200', async (t) => {
  const { port, objects, route, logged } = await site(t);
  await truncate(objects.localPath(route.object_key!)!, 600_000);
  await assert.rejects(ask(port, '/big.bin'), /broke off|aborted|ECONNRESET|hang up/);
  assert.ok(logged.some((line) => line.level === 'error'));

  const { edge } = await edgeFor(t, [{ ...route, object_key: 'releases/none.tar' }], { objects });
  await rm(objects.localPath('releases/none.tar')!, { force: true });
  const gone = await ask(edge.port, '/');
  assert.equal(gone.status, 503);
  assert.equal(gone.headers['x-kiln-error'], 'ARTIFACT_UNREADABLE');
});

test('damaged bytes are not served, and what is kept in memory is not read again', async (t) => {
  const { port, objects, route } = await site(t);
  assert.equal((await ask(port, '/')).status, 200);
  await writeFile(objects.localPath(route.object_key!)!, Buffer.alloc(3_000_000, 'x'));
  assert.equal((await ask(port, '/')).body, FILES['index.html']);
  const damaged = await ask(port, '/docs/');
  assert.deepEqual([damaged.status, damaged.headers['x-kiln-error']], [503, 'ARTIFACT_UNREADABLE']);
});

test('the memory for small files is bounded', async (t) => {
  const objects = new MemoryObjects();
  const files = Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`${i}.txt`, `${i}`.repeat(1000)]));
  const { edge } = await edgeFor(t, [await staticRoute(objects, files)], {
    objects,
    limits: { file_cache_bytes: 5000 },
  });
  for (let round = 0; round < 2; round++) {
    for (const [name, content] of Object.entries(files)) {
      assert.equal((await ask(edge.port, `/${name}`)).body, content);
    }
  }
});

test('raw UTF-8 and odd bytes in a path do no harm', async (t) => {
  const { port } = await site(t);
  for (const url of ['/\xff\xfe', '/a\tb', '/%ff', '/a%0d%0ax:1']) {
    const answer = await askRaw(port, `GET ${url} HTTP/1.1\r\nHost: ${HOST}\r\nConnection: close\r\n\r\n`);
    assert.match(answer, /^HTTP\/1\.1 4\d\d /);
  }
});

test('few releases are kept open at once, and each still answers', async (t) => {
  const objects = new MemoryObjects();
  const routes = await Promise.all(
    Array.from({ length: 6 }, (_, i) =>
      staticRoute(objects, { 'index.html': `site ${i}` }, { slug: `s${i}` }),
    ),
  );
  const { edge } = await edgeFor(t, routes, { objects, limits: { open_sites: 2 } });
  for (let round = 0; round < 3; round++) {
    const all = routes.map((_, i) => ask(edge.port, '/', { headers: { host: `s${i}.acme.localhost` } }));
    assert.deepEqual(
      (await Promise.all(all)).map((answer) => answer.body),
      routes.map((_, i) => `site ${i}`),
    );
  }
});
