import assert from 'node:assert/strict';
import { once } from 'node:events';
import type http from 'node:http';
import { buffer } from 'node:stream/consumers';
import { test } from 'node:test';
import {
  appInstance,
  appRoute,
  ask,
  askRaw,
  edgeFor,
  edgeForApp,
  HOST,
  openRequest,
  sha256,
} from './fixture.ts';

test('method, path, query, headers and body arrive; status, headers and body come back', async (t) => {
  const { port } = await edgeForApp(t, async (req, res) => {
    const body = await buffer(req);
    res.writeHead(201, 'Made', [
      ['x-app', 'yes'],
      ['set-cookie', 'a=1'],
      ['set-cookie', 'b=2'],
    ] as never);
    res.end(JSON.stringify({ method: req.method, url: req.url, raw: req.rawHeaders, body: body.toString() }));
  });
  const answer = await ask(port, '/a%20b?x=1&x=2', {
    method: 'PATCH',
    body: 'hello',
    headers: { 'X-Case': 'Kept', cookie: 'c=3' },
  });
  assert.equal(answer.status, 201);
  assert.deepEqual(answer.headers['set-cookie'], ['a=1', 'b=2']);
  const seen = JSON.parse(answer.body);
  assert.equal(seen.method, 'PATCH');
  assert.equal(seen.url, '/a%20b?x=1&x=2');
  assert.equal(seen.body, 'hello');
  assert.ok(seen.raw.includes('X-Case'));
});

test('forwarding headers are the edge’s own, hop-by-hop ones stay behind', async (t) => {
  const { port } = await edgeForApp(t, (req, res) => {
    res.writeHead(200, { connection: 'keep-alive, x-hop', 'x-hop': '1', 'proxy-authenticate': 'Basic' });
    res.end(JSON.stringify(req.headers));
  });
  const answer = await ask(port, '/', {
    headers: {
      host: `${HOST}:7080`,
      'x-forwarded-for': '6.6.6.6',
      'x-forwarded-proto': 'https',
      'x-forwarded-prefix': '/evil',
      forwarded: 'for=6.6.6.6',
      'x-real-ip': '6.6.6.6',
      connection: 'close, x-private, x-forwarded-for',
      'x-private': 'secret',
      te: 'trailers',
      'proxy-authorization': 'Basic x',
    },
  });
  const seen = JSON.parse(answer.body);
  assert.equal(seen.host, `${HOST}:7080`);
  assert.equal(seen['x-forwarded-for'], '127.0.0.1');
  assert.equal(seen['x-forwarded-proto'], 'http');
  assert.equal(seen['x-forwarded-host'], `${HOST}:7080`);
  assert.equal(seen['x-forwarded-port'], '7080');
  assert.equal(seen['x-real-ip'], '127.0.0.1');
  assert.equal(seen.forwarded, `for=127.0.0.1;host="${HOST}:7080";proto=http`);
  assert.equal(seen.te, 'trailers');
  for (const name of ['x-private', 'proxy-authorization', 'x-forwarded-prefix']) {
    assert.equal(seen[name], undefined, name);
  }
  assert.equal(answer.headers['x-hop'], undefined);
  assert.equal(answer.headers['proxy-authenticate'], undefined);
});

test('a header that an app may take for one of the edge’s is not sent on', async (t) => {
  const instance = await appInstance(t, 'ins_1', (req, res) => res.end(JSON.stringify(req.headers)));
  for (const trust_forwarded of [false, true]) {
    const { edge } = await edgeFor(t, [appRoute([instance])], { trust_forwarded });
    const names = [
      'x_forwarded_for',
      'X_Real-IP',
      'x-forwarded_proto',
      'X_Forwarded_Prefix',
      'content_length',
    ];
    const headers = Object.fromEntries(names.map((name) => [name, '6.6.6.6']));
    headers.transfer_encoding = 'chunked';
    headers.api_key = 'kept';
    const seen = JSON.parse((await ask(edge.port, '/', { headers })).body);
    assert.deepEqual(
      Object.keys(seen).filter((name) => name.includes('_')),
      ['api_key'],
    );
    assert.equal(seen['x-real-ip'], '127.0.0.1');
  }
});

test('behind a trusted proxy its forwarding headers are kept and added to', async (t) => {
  const instance = await appInstance(t, 'ins_1', (req, res) => res.end(JSON.stringify(req.headers)));
  const { edge } = await edgeFor(t, [appRoute([instance])], { trust_forwarded: true });
  const headers = { 'x-forwarded-for': '6.6.6.6', 'x-forwarded-proto': 'https', 'x-forwarded-prefix': '/p' };
  const seen = JSON.parse((await ask(edge.port, '/', { headers })).body);
  assert.equal(seen['x-forwarded-for'], '6.6.6.6, 127.0.0.1');
  assert.equal(seen['x-forwarded-proto'], 'https');
  assert.equal(seen['x-forwarded-port'], '443');
  assert.equal(seen['x-forwarded-prefix'], '/p');
  assert.equal(seen['x-real-ip'], '6.6.6.6');
});

test('bodies stream both ways: each part is there before the next is sent', async (t) => {
  const { port } = await edgeForApp(t, (req, res) => {
    res.writeHead(200).flushHeaders();
    req.on('data', (chunk) => res.write(`got ${chunk}`));
    req.on('end', () => res.end('bye'));
  });
  const request = openRequest(port, { method: 'POST' });
  request.flushHeaders();
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  for (const part of ['one', 'two', 'three']) {
    request.write(part);
    const [chunk] = await once(response, 'data');
    assert.equal(String(chunk), `got ${part}`);
  }
  request.end();
  assert.equal(String((await once(response, 'data'))[0]), 'bye');
});

test('large bodies arrive whole, and a slow reader slows the app down', async (t) => {
  const body = Buffer.alloc(8_000_000, 'large body ');
  let produced = 0;
  const { port } = await edgeForApp(t, async (req, res) => {
    if (req.url === '/echo') return void req.pipe(res);
    const chunk = Buffer.alloc(64 * 1024);
    const more = (): void => {
      while (produced < 200_000_000 && res.write(chunk)) produced += chunk.length;
    };
    res.on('drain', more);
    more();
  });
  const echo = await ask(port, '/echo', { method: 'POST', body });
  assert.equal(sha256(echo.body), sha256(body));

  const request = openRequest(port, { path: '/endless' });
  request.end();
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  response.pause();
  let last = -1;
  while (last !== produced) {
    last = produced;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  assert.ok(produced < 40_000_000, `${produced} bytes were produced for a client that reads none`);
  request.destroy();
});

test('framing is written anew: a GET with a body, a chunked DELETE, trailers', async (t) => {
  const seen: string[] = [];
  const { port } = await edgeForApp(t, async (req, res) => {
    const body = await buffer(req);
    seen.push(`${req.method} ${req.url} ${body} ${req.trailers['x-sum'] ?? ''}`.trim());
    res.writeHead(200, { trailer: 'x-done' });
    res.write('ok');
    res.addTrailers({ 'x-done': 'yes' });
    res.end();
  });
  const smuggled = 'GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n';
  const chunked = (body: string) => `${body.length.toString(16)}\r\n${body}\r\n0\r\nX-Sum: 9\r\n\r\n`;
  await askRaw(
    port,
    `GET /1 HTTP/1.1\r\nHost: ${HOST}\r\nContent-Length: ${smuggled.length}\r\n\r\n${smuggled}` +
      `GET /2 HTTP/1.1\r\nHost: ${HOST}\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n${chunked(smuggled)}` +
      `DELETE /3 HTTP/1.1\r\nHost: ${HOST}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n${chunked('x')}`,
  );
  assert.deepEqual(seen.toSorted(), [`DELETE /3 x 9`, `GET /1 ${smuggled}`.trim(), `GET /2 ${smuggled} 9`]);
  const answer = await ask(port, '/4');
  assert.deepEqual([answer.body, answer.trailers['x-done']], ['ok', 'yes']);
});

test('conflicting or odd framing is refused before it reaches the app', async (t) => {
  let reached = 0;
  const { port } = await edgeForApp(t, (_req, res) => res.end(String(++reached)));
  const bad = [
    'Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    'Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcd',
    'Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n',
    'Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n',
    'Content-Length: +4\r\n\r\nabcd',
    'Host: other.acme.localhost\r\n\r\n',
  ];
  for (const headers of bad) {
    const answer = await askRaw(port, `POST / HTTP/1.1\r\nHost: ${HOST}\r\nConnection: close\r\n${headers}`);
    assert.match(answer, /^HTTP\/1\.1 400 /, headers);
  }
  // The connection ends, although the client did not ask for it (askRaw would wait for ever).
  const kept = await askRaw(port, `GET / HTTP/1.1\r\nHost: ${HOST}\r\nHost: other.acme.localhost\r\n\r\n`);
  assert.match(kept, /^HTTP\/1\.1 400 [\s\S]*\r\nConnection: close\r\n/);
  assert.match(
    await askRaw(port, `CONNECT ${HOST}:443 HTTP/1.1\r\nHost: ${HOST}:443\r\n\r\n`),
    /^HTTP\/1\.1 400 /,
  );
  assert.equal(reached, 0);
});

test('Expect: 100-continue is asked for only when the app is there to read', async (t) => {
  const { port } = await edgeForApp(t, async (req, res) => void res.end(`read ${await buffer(req)}`));
  const send = async (host: string) => {
    const headers = { host, expect: '100-continue', 'content-length': 4 };
    const request = openRequest(port, { method: 'POST', headers });
    let continued = false;
    request.on('continue', () => {
      continued = true;
      request.end('body');
    });
    request.flushHeaders();
    const [response] = (await once(request, 'response')) as [http.IncomingMessage];
    const body = (await buffer(response)).toString();
    request.destroy();
    return [response.statusCode, continued, body.startsWith('read body')];
  };
  assert.deepEqual(await send(HOST), [200, true, true]);
  assert.deepEqual(await send('none.acme.localhost'), [404, false, false]);
});

test('early hints are passed on, and an early answer ends an upload', async (t) => {
  const { port, edge } = await edgeForApp(t, (req, res) => {
    if (req.method === 'POST') return void res.writeHead(403).end('no');
    req.socket.write('HTTP/1.1 103 Early Hints\r\nLink: nonsense\r\n\r\n');
    res.writeEarlyHints({ link: '</a.css>; rel=preload' });
    res.end('page');
  });
  const request = openRequest(port);
  request.end();
  const [hint] = (await once(request, 'information')) as [http.InformationEvent];
  assert.deepEqual([hint.statusCode, hint.headers.link], [103, '</a.css>; rel=preload']);
  const upload = openRequest(port, { method: 'POST' });
  upload.write('x'.repeat(100_000));
  const [refused] = (await once(upload, 'response')) as [http.IncomingMessage];
  assert.equal(refused.statusCode, 403);
  assert.equal((await buffer(refused)).toString(), 'no');
  upload.destroy();
  assert.equal(await edge.onIdle('ins_1', 1000), true);
});

test('hostile hosts and targets get a page that repeats nothing of them', async (t) => {
  const { port } = await edgeForApp(t, (_req, res) => res.end('app'));
  const get = (line: string, host: string) =>
    askRaw(port, `GET ${line} HTTP/1.1\r\nHost: ${host}\r\nAccept: text/html\r\nConnection: close\r\n\r\n`);
  assert.match(await get('/', '<script>alert(1)</script>'), /^HTTP\/1\.1 400 /);
  assert.match(await get('/', 'a b'), /^HTTP\/1\.1 400 /);
  assert.match(await get('http://evil/', HOST), /^HTTP\/1\.1 400 /);
  assert.match(await get('*', HOST), /^HTTP\/1\.1 400 /);
  assert.match(await get(`http://${HOST}/x`, HOST), /^HTTP\/1\.1 200 /);
  const unknown = await get('/<script>alert(1)</script>', 'nobody.example.com');
  assert.match(unknown, /^HTTP\/1\.1 404 /);
  assert.doesNotMatch(unknown, /script|nobody/);
  assert.match(await get('/', HOST.toUpperCase()), /^HTTP\/1\.1 200 /);
  assert.match(await askRaw(port, 'GET / HTTP/1.1\r\n\r\n'), /^HTTP\/1\.1 400 /);
});

test('the bare domain has the index page, if there is one', async (t) => {
  let page: string | null = '<h1>Kiln</h1>';
  const { edge } = await edgeFor(t, [], { index_page: () => page });
  const headers = { host: `localhost:${edge.port}` };
  assert.equal((await ask(edge.port, '/', { headers })).body, '<h1>Kiln</h1>');
  page = null;
  assert.equal((await ask(edge.port, '/', { headers })).status, 404);
  assert.equal(edge.url, `http://localhost:${edge.port}`);
});
