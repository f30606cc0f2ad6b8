/** Compressed forms of static files: who gets which, as what, and what that may cost. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import type http from 'node:http';
import { buffer } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import { brotliDecompressSync, gunzipSync } from 'node:zlib';
import type { StaticFile, StaticSite } from '../release/static-site.ts';
import { acceptedCodings, isCompressible } from './coding.ts';
import { CompressedFiles } from './compressed-files.ts';
import { FileCache } from './file-cache.ts';
import {
  appInstance,
  appRoute,
  edgeFor,
  HOST,
  MemoryObjects,
  openRequest,
  sha256,
  staticRoute,
} from './fixture.ts';
import type { SiteLease } from './sites.ts';
import { contentType } from './static-path.ts';

const BUNDLE = 'export const answer = 42;\n'.repeat(10_000);
const PAGE = '<p>home</p>\n'.repeat(200);
const NOISE = Buffer.from(
  Array.from({ length: 4000 }, (_, i) => sha256(String(i)).slice(0, 2)).join(''),
  'hex',
);
const FILES = {
  'index.html': PAGE,
  'app.js': BUNDLE,
  'app.js.gz': 'shipped by the site '.repeat(100),
  'app.js.br': 'shipped by the site '.repeat(100),
  'noise.txt': NOISE,
  'photo.jpg': 'x'.repeat(5000),
  'tiny.css': 'a{}',
  '404.html': '<p>lost</p>\n'.repeat(200),
};
/** Nobody is answered before the compressed form is there. */
const PATIENT = { compression_wait_ms: 60_000 };

async function site(t: TestContext, more: { spa_fallback?: string; limits?: object } = {}) {
  const objects = new MemoryObjects();
  const { spa_fallback, limits = PATIENT } = more;
  const route = await staticRoute(objects, FILES, spa_fallback === undefined ? {} : { spa_fallback });
  const { edge, feed, logged } = await edgeFor(t, [route], { objects, limits });
  return { port: edge.port, edge, feed, objects, logged };
}

async function get(port: number, path: string, headers: Record<string, string> = {}, method = 'GET') {
  const request = openRequest(port, { path, method, headers: { host: HOST, ...headers } });
  request.end();
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  const bytes = await buffer(response);
  assert.equal(response.complete, true);
  return { status: response.statusCode!, headers: response.headers, bytes };
}

const accept = (value: string) => ({ 'accept-encoding': value });
const tag = (content: string | Buffer, coding = '') => `"${sha256(content).slice(0, 32)}${coding}"`;

test('what a client accepts, and what it likes best', () => {
  const cases: [string | undefined, string | null, (string | null)[]][] = [
    [undefined, null, [null]],
    ['', null, [null]],
    ['gzip, deflate, br, zstd', 'br', ['br', 'gzip', null]],
    ['GZIP', 'gzip', ['gzip', null]],
    ['x-gzip', 'gzip', ['gzip', null]],
    ['br;q=0.5, gzip;q=0.8', 'gzip', ['br', 'gzip', null]],
    ['br;q=0.001', 'br', ['br', null]],
    ['gzip;q=0', null, [null]],
    ['gzip;q=0.000, br;q=0', null, [null]],
    ['*', 'br', ['br', 'gzip', null]],
    ['*, br;q=0', 'gzip', ['gzip', null]],
    ['gzip;q=0.3, *;q=0.5', 'br', ['br', 'gzip', null]],
    ['identity, gzip;q=0.5', null, ['gzip', null]],
    ['identity;q=0.5, gzip;q=0.5', 'gzip', ['gzip', null]],
    ['identity;q=0, gzip', 'gzip', ['gzip']],
    ['*;q=0, br', 'br', ['br']],
    ['*;q=0, identity', null, [null]],
    ['*;q=0', null, [null]],
    ['identity;q=0', null, [null]],
    ['deflate, zstd', null, [null]],
    ['gzip;q=2, br;q=x, gzip;level=9', null, [null]],
    ['gzip ; q=1.0 ,br ; q=0.9', 'gzip', ['br', 'gzip', null]],
    [',,;q=1,gzip', 'gzip', ['gzip', null]],
    [`${','.repeat(30_000)}gzip`, null, [null]],
  ];
  for (const [header, preferred, accepted] of cases) {
    const got = acceptedCodings(header);
    assert.equal(got.preferred, preferred, header?.slice(0, 100));
    assert.deepEqual([...got.accepted].toSorted(), accepted.toSorted(), header?.slice(0, 100));
  }
});

test('which types are worth it', () => {
  for (const name of [
    'a.html',
    'a.css',
    'a.js',
    'a.mjs',
    'a.json',
    'a.svg',
    'a.xml',
    'a.wasm',
    'a.txt',
    'a.webmanifest',
  ]) {
    assert.equal(isCompressible(contentType(name)), true, name);
  }
  for (const name of [
    'a.png',
    'a.jpg',
    'a.webp',
    'a.mp4',
    'a.woff2',
    'a.zip',
    'a.gz',
    'a.br',
    'a.pdf',
    'a.bin',
    'a',
  ]) {
    assert.equal(isCompressible(contentType(name)), false, name);
  }
});

test('a file is sent in the form that is liked best, each with its own validator and length', async (t) => {
  const { port } = await site(t);
  for (const [value, coding, decoded] of [
    ['gzip, br', 'br', brotliDecompressSync],
    ['gzip', 'gzip', gunzipSync],
  ] as const) {
    for (let round = 0; round < 2; round++) {
      const answer = await get(port, '/app.js', accept(value));
      assert.equal(answer.status, 200);
      assert.equal(String(decoded(answer.bytes)), BUNDLE);
      assert.ok(answer.bytes.length < BUNDLE.length / 20);
      assert.equal(answer.headers['content-encoding'], coding);
      assert.equal(answer.headers['content-length'], String(answer.bytes.length));
      assert.equal(answer.headers['content-type'], 'text/javascript; charset=utf-8');
      assert.equal(answer.headers.etag, tag(BUNDLE, `-${coding}`));
      assert.equal(answer.headers.vary, 'accept-encoding');
      assert.equal(answer.headers['accept-ranges'], undefined);
      const head = await get(port, '/app.js', accept(value), 'HEAD');
      assert.deepEqual({ ...head.headers, date: '' }, { ...answer.headers, date: '' });
      assert.equal(head.bytes.length, 0);
    }
  }
  for (const value of ['', 'identity', 'gzip;q=0, br;q=0', 'zstd', '*;q=0']) {
    const plain = await get(port, '/app.js', accept(value));
    assert.equal(String(plain.bytes), BUNDLE, value);
    assert.deepEqual(
      [plain.headers['content-encoding'], plain.headers.vary, plain.headers.etag],
      [undefined, 'accept-encoding', tag(BUNDLE)],
    );
  }
});

test('what is small, saves nothing or is of another type is sent as it is; files of the site with such names too', async (t) => {
  const { port } = await site(t);
  const cases: [string, string | undefined][] = [
    ['tiny.css', 'accept-encoding'],
    ['noise.txt', 'accept-encoding'],
    ['photo.jpg', undefined],
    ['app.js.gz', undefined],
    ['app.js.br', undefined],
  ];
  for (const [name, vary] of cases) {
    for (let round = 0; round < 2; round++) {
      const answer = await get(port, `/${name}`, accept('gzip, br'));
      const content = FILES[name as keyof typeof FILES];
      assert.equal(answer.bytes.equals(Buffer.from(content)), true, name);
      assert.deepEqual([answer.headers['content-encoding'], answer.headers.vary], [undefined, vary], name);
      assert.equal(answer.headers.etag, tag(content), name);
    }
  }
});

test('304 for whichever form the client has and may use', async (t) => {
  const { port } = await site(t);
  const ask = async (held: string, value: string, method = 'GET') => {
    const answer = await get(port, '/app.js', { 'if-none-match': held, ...accept(value) }, method);
    assert.equal(answer.headers.vary, 'accept-encoding');
    return [answer.status, answer.headers.etag];
  };
  const [plain, br, gzip] = [tag(BUNDLE), tag(BUNDLE, '-br'), tag(BUNDLE, '-gzip')];
  for (const held of [plain, br, gzip]) {
    assert.deepEqual(await ask(held, 'gzip, br'), [304, held]);
    assert.deepEqual(await ask(`W/${held}`, 'gzip, br'), [304, held]);
    assert.deepEqual(await ask(`"x", ${held}`, 'gzip, br', 'HEAD'), [304, held]);
  }
  assert.deepEqual(await ask(`${plain}, ${gzip}, ${br}`, 'gzip, br'), [304, br]);
  assert.deepEqual(await ask(`${plain}, ${gzip}, ${br}`, 'gzip'), [304, gzip]);
  assert.deepEqual(await ask('*', ''), [304, plain]);
  assert.deepEqual(await ask(br, 'gzip'), [200, gzip]);
  assert.deepEqual(await ask(gzip, ''), [200, plain]);
  assert.deepEqual(await ask(plain, 'gzip, identity;q=0'), [200, gzip]);
  assert.deepEqual(await ask('"x"', 'br'), [200, br]);
});

test('parts are always of the file as it is', async (t) => {
  const { port } = await site(t);
  await get(port, '/app.js', accept('br'));
  const range = async (more: Record<string, string>) => {
    const answer = await get(port, '/app.js', { range: 'bytes=7-11', ...accept('br'), ...more });
    const { 'content-encoding': coding, etag, vary } = answer.headers;
    assert.deepEqual([coding, etag, vary], [undefined, tag(BUNDLE), 'accept-encoding']);
    return [answer.status, answer.bytes.length];
  };
  assert.deepEqual(await range({}), [206, 5]);
  assert.deepEqual(await range({ 'if-range': tag(BUNDLE) }), [206, 5]);
  assert.deepEqual(await range({ 'if-range': tag(BUNDLE, '-br') }), [200, BUNDLE.length]);
  assert.deepEqual(await range({ range: 'bytes=9999999-' }), [416, 0]);
  const refused = await get(port, '/app.js', { range: 'bytes=7-11', ...accept('br, identity;q=0') });
  assert.deepEqual([refused.status, refused.headers['content-encoding']], [200, 'br']);
});

test('404.html and the entry of a single-page app are compressed as well', async (t) => {
  const { port } = await site(t);
  const lost = await get(port, '/nope', accept('gzip'));
  assert.deepEqual([lost.status, String(gunzipSync(lost.bytes))], [404, FILES['404.html']]);
  assert.equal(lost.headers['cache-control'], 'no-store');
  const app = await site(t, { spa_fallback: 'index.html' });
  const page = await get(app.port, '/users/42', { accept: 'text/html', ...accept('gzip') });
  assert.deepEqual([page.status, String(gunzipSync(page.bytes))], [200, PAGE]);
  assert.equal(page.headers.vary, 'accept, accept-encoding');
});

test('what an app answers is its own business', async (t) => {
  const instance = await appInstance(t, 'ins_1', (req, res) => {
    res.setHeader('content-type', 'text/html');
    res.end(`${req.headers['accept-encoding']} ${PAGE}`);
  });
  const { edge } = await edgeFor(t, [appRoute([instance])], { limits: PATIENT });
  const answer = await get(edge.port, '/', accept('gzip, br'));
  assert.equal(String(answer.bytes), `gzip, br ${PAGE}`);
  assert.deepEqual([answer.headers['content-encoding'], answer.headers.vary], [undefined, undefined]);
});

test('a switch of the release: the new file at once, in every form', async (t) => {
  const { port, edge, feed, objects } = await site(t);
  const first = await get(port, '/app.js', accept('br'));
  const changed = BUNDLE.replaceAll('42', '43');
  feed.set([await staticRoute(objects, { 'moved.js': BUNDLE, 'app.js': changed })]);
  await edge.waitForGeneration(feed.generation, 5000);
  const second = await get(port, '/app.js', accept('br'));
  assert.equal(String(brotliDecompressSync(second.bytes)), changed);
  const moved = await get(port, '/moved.js', accept('br'));
  assert.deepEqual([moved.headers.etag, moved.bytes.equals(first.bytes)], [first.headers.etag, true]);
});

test('whoever does not want to wait gets the file as it is, and the next one what has been made', async (t) => {
  const { port } = await site(t, { limits: { compression_wait_ms: 0 } });
  const first = await get(port, '/app.js', accept('br'));
  assert.equal(first.status, 200);
  for (;;) {
    const answer = await get(port, '/app.js', accept('br'));
    if (answer.headers['content-encoding'] === 'br') break;
    assert.equal(String(answer.bytes), BUNDLE);
  }
  const only = await get(port, '/', accept('gzip, identity;q=0'));
  assert.equal(only.headers['content-encoding'], 'gzip');
});

/** Files of a release that counts how often one is read, and may hold readers up. */
function counted(contents: string[], held: Promise<unknown> = Promise.resolve()) {
  const seen = { reads: 0, leases: 0 };
  const files = contents.map(
    (content, i): StaticFile => ({ path: `${i}`, offset: i, size: content.length, sha256: sha256(content) }),
  );
  const readAll = async (file: StaticFile): Promise<Buffer> => {
    seen.reads++;
    await held;
    return Buffer.from(contents[file.offset]!);
  };
  const lease: SiteLease = {
    site: { readAll } as unknown as StaticSite,
    release: () => void seen.leases--,
    another: () => {
      seen.leases++;
      return lease;
    },
  };
  return { lease, files, seen };
}

test('each form is made once while it is kept, whoever asks', async () => {
  const cache = new FileCache(1_000_000);
  const compressed = new CompressedFiles(cache, PATIENT.compression_wait_ms);
  const { lease, files, seen } = counted([BUNDLE]);
  const [file] = files as [StaticFile];
  const all = await Promise.all(Array.from({ length: 50 }, () => compressed.get(lease, file, 'gzip', false)));
  assert.equal(new Set(all).size, 1);
  await compressed.get(lease, file, 'gzip', false);
  assert.deepEqual(seen, { reads: 1, leases: 0 });
  await compressed.get(lease, file, 'br', false);
  assert.deepEqual(seen, { reads: 2, leases: 0 });
  const other = counted([BUNDLE]);
  assert.equal(await compressed.get(other.lease, other.files[0]!, 'gzip', false), all[0]);
  assert.equal(other.seen.reads, 0);
});

test('only so much is begun at once; who comes then gets the file as it is', async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  const contents = Array.from({ length: 200 }, (_, i) => `${i} `.repeat(1000));
  const { lease, files, seen } = counted(contents, promise);
  const compressed = new CompressedFiles(new FileCache(10_000_000), 60_000);
  const asked = files.map((file) => compressed.get(lease, file, 'br', true));
  await new Promise(setImmediate);
  assert.ok(seen.reads <= 2, `${seen.reads} at once`);
  assert.ok(seen.leases <= 66, `${seen.leases} releases held`);
  resolve();
  const made = (await Promise.all(asked)).filter((bytes) => bytes !== null);
  assert.ok(made.length >= 65 && made.length <= 66, `${made.length} were made`);
  assert.equal(seen.leases, 0);
  const late = await compressed.get(lease, files[199]!, 'br', true);
  assert.equal(String(brotliDecompressSync(late!)), contents[199]);
});

test('a damaged file is not compressed, and its failure is not kept', async () => {
  const compressed = new CompressedFiles(new FileCache(1_000_000), 60_000);
  const good = counted([BUNDLE]);
  const bad = counted([BUNDLE.replace('42', '43')]);
  for (let i = 0; i < 2; i++) {
    await assert.rejects(compressed.get(bad.lease, good.files[0]!, 'br', false), { code: 'STORAGE_FAILED' });
  }
  assert.deepEqual(bad.seen, { reads: 2, leases: 0 });
  assert.notEqual(await compressed.get(good.lease, good.files[0]!, 'br', false), null);
});

test('what is kept is bounded', async () => {
  const compressed = new CompressedFiles(new FileCache(2000), 60_000);
  const { lease, files, seen } = counted(Array.from({ length: 20 }, (_, i) => `${i} `.repeat(1000)));
  for (const file of files) await compressed.get(lease, file, 'gzip', false);
  await compressed.get(lease, files[19]!, 'gzip', false);
  assert.equal(seen.reads, 20);
  await compressed.get(lease, files[0]!, 'gzip', false);
  assert.equal(seen.reads, 21);
});
