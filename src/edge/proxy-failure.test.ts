/** What the proxy does when an instance, a client or the edge itself goes away, and where its limits are. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import net from 'node:net';
import { buffer } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import {
  appInstance,
  appRoute,
  ask,
  askRaw,
  edgeFor,
  edgeForApp,
  emptyRoute,
  HOST,
  openRequest,
} from './fixture.ts';

test('a client that goes away ends the request at the app', async (t) => {
  const { promise: aborted, resolve } = Promise.withResolvers<void>();
  const { promise: arrived, resolve: arrive } = Promise.withResolvers<void>();
  const { port, edge } = await edgeForApp(t, (_req, res) => {
    res.on('close', resolve);
    arrive();
  });
  const request = openRequest(port);
  request.end();
  await arrived;
  assert.equal(edge.inFlight('ins_1'), 1);
  request.destroy();
  await aborted;
  assert.equal(await edge.onIdle('ins_1', 1000), true);
});

test('an answer that breaks off never looks whole', async (t) => {
  const { port } = await edgeForApp(t, (req, res) => {
    if (req.url === '/length') res.writeHead(200, { 'content-length': 1000 });
    res.write('some');
    setImmediate(() => req.socket.destroy());
  });
  for (const url of ['/chunked', '/length']) {
    await assert.rejects(ask(port, url), /broke off|aborted|ECONNRESET/, url);
    const old = net.connect(port, '127.0.0.1');
    old.write(`GET ${url} HTTP/1.0\r\nHost: ${HOST}\r\n\r\n`);
    await assert.rejects(buffer(old), /ECONNRESET/, url);
  }
});

test('an answer without a length is whole when its connection ends, and broken when it is reset', async (t) => {
  for (const method of ['GET', 'POST']) {
    const { promise: reset_due, resolve: reset } = Promise.withResolvers<void>();
    const server = net.createServer((socket) => {
      socket.on('error', () => {});
      socket.once('data', async (data) => {
        socket.write('HTTP/1.1 200 OK\r\n\r\nsome');
        if (String(data).includes('/whole')) return void socket.end(' more');
        await reset_due;
        socket.resetAndDestroy();
      });
    });
    const { port } = await edgeForApp(t, server);
    const body = method === 'POST' ? 'x' : undefined;
    assert.equal((await ask(port, '/whole', { method, body })).body, 'some more');
    const request = openRequest(port, { path: '/reset', method });
    request.end(body);
    const [response] = (await once(request, 'response')) as [http.IncomingMessage];
    await once(response, 'data');
    reset();
    await assert.rejects(buffer(response), /aborted|ECONNRESET/, method);
  }
});

test('an app that refuses, breaks or is silent: 502, 504, and 503 without one', async (t) => {
  const refuses = { id: 'ins_9', host: '127.0.0.1', port: 1 };
  const breaks = await appInstance(
    t,
    'ins_2',
    net.createServer((socket) => socket.once('data', () => socket.destroy())),
  );
  const garbles = await appInstance(
    t,
    'ins_3',
    net.createServer((socket) => socket.end('nonsense\r\n\r\n')),
  );
  const silent = await appInstance(t, 'ins_4', () => {});
  const routes = Object.entries({ refuses, breaks, garbles, silent }).map(([slug, instance]) =>
    appRoute([instance], { slug }),
  );
  routes.push(
    appRoute([], { slug: 'none' }),
    appRoute([], { slug: 'stopped', state: 'stopped' }),
    emptyRoute(),
  );
  const { edge, logged } = await edgeFor(t, routes, { limits: { first_byte_timeout_ms: 80 } });
  const get = async (slug: string, accept = '') => {
    const headers = { host: `${slug}.acme.localhost`, accept };
    return ask(edge.port, '/', { method: 'POST', headers, body: 'x' });
  };
  assert.equal((await get('refuses')).status, 502);
  assert.equal((await get('breaks')).status, 502);
  assert.equal((await get('garbles')).status, 502);
  assert.equal((await get('silent')).status, 504);
  const none = await get('none', 'application/json');
  assert.deepEqual([none.status, none.headers['retry-after']], [503, '5']);
  assert.equal(JSON.parse(none.body).error.code, 'NO_INSTANCE');
  assert.equal((await get('stopped')).headers['x-kiln-error'], 'STOPPED');
  const empty = await get('shop', 'text/html');
  assert.deepEqual([empty.status, empty.headers['x-kiln-error']], [404, 'NOTHING_PUBLISHED']);
  assert.match(empty.body, /Nothing published yet/);
  assert.equal(empty.headers['cache-control'], 'no-store');
  assert.ok(logged.every((line) => line.level === 'warn'));
  for (const id of ['ins_9', 'ins_2', 'ins_3', 'ins_4']) assert.equal(edge.inFlight(id), 0);
});

test('a refused connection goes to another instance, whatever the method', async (t) => {
  const good = await appInstance(t, 'ins_2', async (req, res) => void res.end(await buffer(req)));
  const { edge } = await edgeFor(t, [appRoute([{ id: 'ins_1', host: '127.0.0.1', port: 1 }, good])]);
  for (let i = 0; i < 4; i++) {
    assert.equal((await ask(edge.port, '/')).status, 200);
    assert.equal((await ask(edge.port, '/', { method: 'POST', body: 'hi' })).body, 'hi');
  }
  assert.deepEqual([edge.inFlight('ins_1'), edge.inFlight('ins_2')], [0, 0]);
});

test('requests are spread over the instances', async (t) => {
  const hits: Record<string, number> = {};
  const instances = await Promise.all(
    ['ins_1', 'ins_2', 'ins_3'].map((id) =>
      appInstance(t, id, (_req, res) => {
        hits[id] = (hits[id] ?? 0) + 1;
        res.end();
      }),
    ),
  );
  const { edge } = await edgeFor(t, [appRoute(instances)]);
  for (let i = 0; i < 30; i++) await ask(edge.port, '/');
  assert.deepEqual(hits, { ins_1: 10, ins_2: 10, ins_3: 10 });
});

/** An app that answers the first request of each connection; `second` is what it does at the first byte of the next. */
async function edgeForOneAnswer(t: TestContext, second: (socket: net.Socket) => void) {
  let connections = 0;
  const server = net.createServer((socket) => {
    connections++;
    socket.on('error', () => {});
    socket.once('data', () => {
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
      socket.once('data', () => second(socket));
    });
  });
  const { port } = await edgeForApp(t, server);
  return { port, opened: () => connections };
}

test('a kept connection that the app is closing costs nothing: GETs go again, on a new one', async (t) => {
  const { port, opened } = await edgeForOneAnswer(t, (socket) => socket.resetAndDestroy());
  for (let i = 0; i < 20; i++) assert.equal((await ask(port, '/')).body, 'ok');
  assert.equal(opened(), 20);
  // The connection that this leaves is reset under the next one, which may not be sent twice.
  assert.equal((await ask(port, '/')).body, 'ok');
  const post = await ask(port, '/', { method: 'POST', body: 'x' });
  assert.equal(post.status, 502);
});

test('an answer that breaks off after its first byte is not asked for again', async (t) => {
  const { port, opened } = await edgeForOneAnswer(t, (socket) => socket.end('HTTP/1.1 200 O'));
  assert.equal((await ask(port, '/')).body, 'ok');
  assert.equal((await ask(port, '/')).status, 502);
  assert.equal(opened(), 1);
});

test('what nobody asked for is not taken for the next answer', async (t) => {
  const answer = (body: string) => `HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
  for (const pause_ms of [0, 5]) {
    const closed: Promise<unknown>[] = [];
    const server = net.createServer((socket) => {
      socket.on('error', () => {});
      closed.push(new Promise((resolve) => socket.once('close', resolve)));
      socket.once('data', () => {
        const surplus = answer('surplus');
        socket.write(answer('asked') + (pause_ms === 0 ? surplus : ''));
        if (pause_ms > 0) setTimeout(() => socket.write(surplus), pause_ms);
      });
    });
    const { port } = await edgeForApp(t, server, { upstream_idle_ms: 60_000 });
    for (let i = 1; i <= 3; i++) {
      assert.equal((await ask(port, '/')).body, 'asked');
      assert.equal(closed.length, i);
      await closed[i - 1];
    }
  }
});

test('an instance that dies under a request: what may be sent twice goes to another one, once', async (t) => {
  const asked: string[] = [];
  const dying = (id: string) => {
    const server = net.createServer((socket) => {
      socket.on('error', () => {});
      socket.once('data', () => {
        asked.push(id);
        socket.resetAndDestroy();
      });
    });
    return appInstance(t, id, server);
  };
  const well = await appInstance(t, 'ins_3', (_req, res) => void res.end('well'));
  const routes = [
    appRoute([await dying('ins_1'), well], { slug: 'one' }),
    appRoute([await dying('ins_2'), await dying('ins_4'), await dying('ins_5')], { slug: 'all' }),
  ];
  const { edge } = await edgeFor(t, routes);
  const get = (slug: string, method = 'GET') =>
    ask(edge.port, '/', { method, headers: { host: `${slug}.acme.localhost` } });
  for (let n = 0; n < 6; n++) assert.equal((await get('one')).body, 'well');
  assert.ok(asked.length > 0);
  asked.length = 0;
  assert.equal((await get('all')).status, 502);
  assert.equal(new Set(asked).size, 2, `${asked}`);
  asked.length = 0;
  assert.equal((await get('all', 'POST')).status, 502);
  assert.equal(asked.length, 1);
  for (const id of ['ins_1', 'ins_2', 'ins_3', 'ins_4', 'ins_5']) assert.equal(edge.inFlight(id), 0);
});

test('kept connections are reused', async (t) => {
  let connections = 0;
  const server = http.createServer((_req, res) => res.end('ok'));
  server.on('connection', () => connections++);
  const { port } = await edgeForApp(t, server);
  for (let i = 0; i < 10; i++) await ask(port, '/');
  assert.equal(connections, 1);
});

test('unused connections are closed soon, slow answers are not', async (t) => {
  const pause = () => new Promise((resolve) => setTimeout(resolve, 120));
  const server = http.createServer(async (_req, res) => {
    await pause();
    res.write('slow ');
    await pause();
    res.end('answer');
  });
  server.keepAliveTimeout = 60_000;
  const connected = once(server, 'connection') as Promise<[net.Socket]>;
  const { port } = await edgeForApp(t, server, { upstream_idle_ms: 50 });
  assert.equal((await ask(port, '/')).body, 'slow answer');
  const [socket] = await connected;
  if (!socket.destroyed) await once(socket, 'close');
});

test('limits: body by length and as it comes, headers by size and count', async (t) => {
  const limits = { body_bytes: 1000, header_count: 20 };
  const { port, edge } = await edgeForApp(t, (req, res) => req.on('error', () => {}).pipe(res), limits);
  assert.equal((await ask(port, '/', { method: 'POST', body: 'x'.repeat(1000) })).status, 200);
  assert.equal((await ask(port, '/', { method: 'POST', body: 'x'.repeat(1001) })).status, 413);
  const request = openRequest(port, { method: 'POST' });
  const answered = once(request, 'response') as Promise<[http.IncomingMessage]>;
  for (let i = 0; i < 5; i++) request.write('x'.repeat(500));
  const [response] = await answered;
  assert.equal(response.statusCode, 413);
  request.destroy();
  const many = Object.fromEntries(Array.from({ length: 30 }, (_, i) => [`x-${i}`, '1']));
  assert.equal((await ask(port, '/', { headers: many })).status, 431);
  assert.equal((await ask(port, '/', { headers: { x: 'y'.repeat(40_000) } })).status, 431);
  assert.equal(await edge.onIdle('ins_1', 1000), true);
});

test('a client that never finishes its headers is cut off', async (t) => {
  const { port } = await edgeForApp(t, (_req, res) => res.end(), { headers_timeout_ms: 100 });
  assert.match(await askRaw(port, 'GET / HTTP/1.1\r\nHost:'), /^(HTTP\/1\.1 408 |$)/);
});

test('closing lets a request finish, then nothing is left', async (t) => {
  const { promise: arrived, resolve } = Promise.withResolvers<http.ServerResponse>();
  const { port, edge } = await edgeForApp(t, (_req, res) => resolve(res), { close_grace_ms: 5000 });
  const answer = ask(port, '/', { agent: new http.Agent({ keepAlive: true }) });
  const response = await arrived;
  const closed = edge.close();
  response.end('done');
  assert.equal((await answer).body, 'done');
  await closed;
  await assert.rejects(ask(port, '/'), /ECONNREFUSED/);
});
