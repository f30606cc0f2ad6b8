import assert from 'node:assert/strict';
import { on, once } from 'node:events';
import http from 'node:http';
import net from 'node:net';
import { buffer } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import { WebSocket, WebSocketServer } from 'ws';
import { appInstance, appRoute, ask, askRaw, edgeFor, HOST, MemoryObjects, staticRoute } from './fixture.ts';

const LARGE = 'x'.repeat(5_000_000);

/** An app that echoes WebSocket messages, and answers /plain and /large without upgrading. */
async function echo(t: TestContext, id = 'ins_1') {
  const server = http.createServer((_req, res) => res.end('page'));
  const wss = new WebSocketServer({ noServer: true });
  server.on('upgrade', (req, socket, head) => {
    if (req.url === '/plain') {
      socket.end('HTTP/1.1 401 Unauthorized\r\nContent-Length: 5\r\nX-App: yes\r\n\r\nlogin');
      return;
    }
    if (req.url === '/large') {
      socket.end(`HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4c4b40\r\n${LARGE}\r\n0\r\n\r\n`);
      return;
    }
    wss.handleUpgrade(req, socket, head, (ws) => {
      ws.send(JSON.stringify({ url: req.url, host: req.headers.host, for: req.headers['x-forwarded-for'] }));
      ws.on('message', (data, binary) => ws.send(data, { binary }));
    });
  });
  return { ...(await appInstance(t, id, server)), wss };
}

async function connect(port: number, url = '/ws', host = HOST) {
  const ws = new WebSocket(`ws://127.0.0.1:${port}${url}`, { headers: { host } });
  ws.on('error', () => {});
  const [hello] = await once(ws, 'message');
  return { ws, hello: JSON.parse(String(hello)) };
}

test('messages go both ways, whole and in order', async (t) => {
  const { edge } = await edgeFor(t, [appRoute([await echo(t)])]);
  const { ws, hello } = await connect(edge.port, '/ws?x=1');
  assert.deepEqual(hello, { url: '/ws?x=1', host: HOST, for: '127.0.0.1' });
  const big = Buffer.alloc(3_000_000, 'message ');
  const sent = ['one', big, 'three'];
  const received = on(ws, 'message');
  for (const message of sent) ws.send(message);
  for (const message of sent) {
    const [data] = (await received.next()).value as [Buffer];
    assert.equal(data.equals(Buffer.from(message)), true);
  }
  ws.close(4001, 'bye');
  const [code, reason] = await once(ws, 'close');
  assert.deepEqual([code, String(reason)], [4001, 'bye']);
  assert.equal(await edge.onIdle('ins_1', 1000), true);
});

test('a WebSocket is in flight until it is closed, from either end', async (t) => {
  const instance = await echo(t);
  const { edge } = await edgeFor(t, [appRoute([instance])]);
  const first = await connect(edge.port);
  const second = await connect(edge.port);
  assert.equal(edge.inFlight('ins_1'), 2);
  assert.equal(await edge.onIdle('ins_1', 20), false);
  const idle = edge.onIdle('ins_1', 5000);
  first.ws.terminate();
  for (const client of instance.wss.clients) client.close();
  await once(second.ws, 'close');
  assert.equal(await idle, true);
});

test('a switch keeps WebSockets on the old instance until it is drained', async (t) => {
  const old = await echo(t, 'ins_old');
  const { edge, feed } = await edgeFor(t, [appRoute([old])]);
  const { ws } = await connect(edge.port);
  feed.set([appRoute([await echo(t, 'ins_new')])]);
  await edge.waitForGeneration(feed.generation, 1000);
  ws.send('still here');
  assert.equal(String((await once(ws, 'message'))[0]), 'still here');
  const next = await connect(edge.port);
  assert.deepEqual([edge.inFlight('ins_old'), edge.inFlight('ins_new')], [1, 1]);
  edge.closeConnections('ins_old');
  await once(ws, 'close');
  assert.equal(await edge.onIdle('ins_old', 1000), true);
  next.ws.send('untouched');
  assert.equal(String((await once(next.ws, 'message'))[0]), 'untouched');
});

test('an app that does not want to upgrade is heard', async (t) => {
  const { edge } = await edgeFor(t, [appRoute([await echo(t)])]);
  const ws = new WebSocket(`ws://127.0.0.1:${edge.port}/plain`, { headers: { host: HOST } });
  ws.on('error', () => {});
  const [, response] = await once(ws, 'unexpected-response');
  assert.equal(response.statusCode, 401);
  assert.equal(response.headers['x-app'], 'yes');
  response.destroy();
  assert.equal(await edge.onIdle('ins_1', 1000), true);
});

test('a large answer instead of an upgrade arrives whole', async (t) => {
  const { edge } = await edgeFor(t, [appRoute([await echo(t)])]);
  const ws = new WebSocket(`ws://127.0.0.1:${edge.port}/large`, { headers: { host: HOST } });
  ws.on('error', () => {});
  const [, response] = await once(ws, 'unexpected-response');
  assert.equal((await buffer(response)).length, LARGE.length);
  assert.equal(response.complete, true);
  assert.equal(await edge.onIdle('ins_1', 5000), true);
});

test('where there is nothing to upgrade, the client is told', async (t) => {
  const objects = new MemoryObjects();
  const rows = [
    await staticRoute(objects, { 'index.html': 'x' }, { slug: 'pages' }),
    appRoute([], { slug: 'none' }),
    appRoute([{ id: 'ins_9', host: '127.0.0.1', port: 1 }], { slug: 'down' }),
    appRoute([{ id: 'ins_8', host: '127.0.0.1', port: 1 }, await echo(t)], { slug: 'half' }),
  ];
  const { edge } = await edgeFor(t, rows, { objects });
  const status = async (slug: string) => {
    const headers = { host: `${slug}.acme.localhost` };
    const ws = new WebSocket(`ws://127.0.0.1:${edge.port}/`, { headers });
    ws.on('error', () => {});
    const [, response] = await once(ws, 'unexpected-response');
    response.destroy();
    return response.statusCode;
  };
  assert.equal(await status('pages'), 400);
  assert.equal(await status('none'), 503);
  assert.equal(await status('down'), 502);
  assert.equal(await status('nobody'), 404);
  for (let i = 0; i < 2; i++) (await connect(edge.port, '/', 'half.acme.localhost')).ws.terminate();
});

test('other protocols are not tunnelled: the request is an ordinary one', async (t) => {
  const { edge } = await edgeFor(t, [appRoute([await echo(t)])]);
  const headers = { connection: 'Upgrade, HTTP2-Settings', upgrade: 'h2c', 'http2-settings': 'AAMAAABk' };
  const answer = await ask(edge.port, '/', { headers });
  assert.deepEqual([answer.status, answer.body], [200, 'page']);
});

test('a client that leaves in the middle of the upgrade, and one that says much too early', async (t) => {
  const { promise: arrived, resolve } = Promise.withResolvers<void>();
  const server = http.createServer();
  server.on('upgrade', (_req, socket) => {
    socket.on('error', () => {});
    resolve();
  });
  const { edge } = await edgeFor(t, [appRoute([await appInstance(t, 'ins_1', server)])]);
  const upgrade = `GET / HTTP/1.1\r\nHost: ${HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`;
  const socket = net.connect(edge.port, '127.0.0.1');
  socket.write(upgrade);
  await arrived;
  assert.equal(edge.inFlight('ins_1'), 1);
  socket.destroy();
  assert.equal(await edge.onIdle('ins_1', 1000), true);

  const early = http.createServer();
  early.on('upgrade', (_req, far, head) => {
    far.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n');
    far.write(head);
    far.pipe(far);
  });
  const second = await edgeFor(t, [appRoute([await appInstance(t, 'ins_2', early)])]);
  const eager = net.connect(second.edge.port, '127.0.0.1');
  eager.write(`${upgrade}early bytes`);
  let text = '';
  for await (const chunk of eager) {
    text += chunk;
    if (text.endsWith('early bytes')) break;
  }
  assert.match(text, /^HTTP\/1\.1 101 Switching Protocols\r\n/);
  assert.equal(
    (await askRaw(second.edge.port, `${upgrade.replace(HOST, 'a b')}`)).slice(0, 12),
    'HTTP/1.1 400',
  );
});

test('closing the edge does not wait for an upgrade that is never answered', async (t) => {
  const { promise: arrived, resolve } = Promise.withResolvers<void>();
  const server = http.createServer().on('upgrade', (_req, socket) => {
    socket.on('error', () => {});
    resolve();
  });
  const { edge } = await edgeFor(t, [appRoute([await appInstance(t, 'ins_1', server)])]);
  const ws = new WebSocket(`ws://127.0.0.1:${edge.port}/`, { headers: { host: HOST } });
  const failed = once(ws, 'error');
  await arrived;
  await edge.close();
  await failed;
  assert.equal(await edge.onIdle('ins_1', 5000), true);
});

test('closing the edge ends WebSockets at once', async (t) => {
  const { edge } = await edgeFor(t, [appRoute([await echo(t)])], { limits: { close_grace_ms: 5000 } });
  const { ws } = await connect(edge.port);
  const closed = once(ws, 'close');
  const started = performance.now();
  await edge.close();
  await closed;
  assert.ok(performance.now() - started < 2000);
});
