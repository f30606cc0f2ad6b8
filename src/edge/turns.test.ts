import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import http from 'node:http';
import net from 'node:net';
import { test } from 'node:test';
import { appInstance, appRoute, ask, askRaw, edgeFor, edgeForApp, HOST, openRequest } from './fixture.ts';
import { Turns } from './turns.ts';

const get = (url: string, more = '') => `GET ${url} HTTP/1.1\r\nHost: ${HOST}\r\n${more}\r\n`;

test('pipelined requests are all answered, in order, one at a time', async (t) => {
  let open = 0;
  let most = 0;
  const server = http.createServer((req, res) => res.end(`<${req.url}>`));
  server.on('connection', (socket) => {
    most = Math.max(most, ++open);
    socket.once('close', () => open--);
  });
  const { port } = await edgeForApp(t, server);
  const count = 1500;
  const requests = Array.from({ length: count }, (_, i) =>
    get(`/${i}`, i === count - 1 ? 'Connection: close\r\n' : ''),
  );
  const answer = await askRaw(port, requests.join(''));
  assert.deepEqual(
    [...answer.matchAll(/<\/(\d+)>/g)].map((match) => Number(match[1])),
    requests.map((_, i) => i),
  );
  assert.ok(most <= 2, `${most} connections to the app at once`); // one, and one that just ends as idle
});

test('bodies of pipelined requests arrive whole', async (t) => {
  const { port } = await edgeForApp(t, async (req, res) => {
    let bytes = 0;
    for await (const chunk of req) bytes += chunk.length;
    res.end(`<${bytes}>`);
  });
  const post = (bytes: number, more = '') =>
    `POST / HTTP/1.1\r\nHost: ${HOST}\r\nContent-Length: ${bytes}\r\n${more}\r\n${'x'.repeat(bytes)}`;
  const sizes = Array.from({ length: 100 }, (_, i) => i * 1000);
  const answer = await askRaw(
    port,
    sizes.map((size) => post(size)).join('') + post(1, 'Connection: close\r\n'),
  );
  assert.deepEqual(
    [...answer.matchAll(/<(\d+)>/g)].map((match) => Number(match[1])),
    [...sizes, 1],
  );
});

test('a client that leaves, and a request that cannot be trusted, end the requests that wait', async (t) => {
  const arrived: string[] = [];
  const events = new EventEmitter();
  const { port, edge } = await edgeForApp(t, (req, res) => {
    arrived.push(req.url!);
    res.on('error', () => {});
    events.emit('arrived');
  });
  const socket = net.connect(port, '127.0.0.1');
  const first = once(events, 'arrived');
  socket.write(get('/1') + get('/2'));
  await first;
  assert.equal(edge.inFlight('ins_1'), 1);
  socket.destroy();
  assert.equal(await edge.onIdle('ins_1', 5000), true);
  assert.match(await askRaw(port, get('/2', 'Host: other\r\n') + get('/3')), /^HTTP\/1\.1 400 /);
  assert.deepEqual(arrived, ['/1']);
});

test('with enough requests waiting no more are read, until some were answered', () => {
  const socket = new net.Socket();
  socket.resume();
  const turns = new Turns(socket, 2);
  const answered: number[] = [];
  const responses = [0, 1, 2, 3].map(() => new EventEmitter() as http.ServerResponse);
  responses.forEach((response, i) => {
    assert.equal(socket.isPaused(), i === 3);
    turns.take(response, () => answered.push(i));
  });
  assert.equal(socket.isPaused(), true);
  socket.resume(); // node does so at the end of every request
  socket.emit('resume');
  assert.equal(socket.isPaused(), true);
  responses[0]!.emit('close');
  assert.deepEqual([answered, socket.isPaused()], [[0, 1], true]);
  responses[1]!.emit('close');
  assert.deepEqual([answered, socket.isPaused()], [[0, 1, 2], false]);
  assert.equal(turns.isIdle(), false);
  responses[2]!.emit('close');
  responses[3]!.emit('close');
  assert.equal(turns.isIdle(), true);
  socket.destroy();
});

test('an instance has so many requests at once and no more', async (t) => {
  const waiting: http.ServerResponse[] = [];
  const arrived = new EventEmitter();
  const wait = (_req: http.IncomingMessage, res: http.ServerResponse) => {
    waiting.push(res);
    arrived.emit('request');
  };
  const instances = [await appInstance(t, 'ins_1', wait), await appInstance(t, 'ins_2', wait)];
  const { edge } = await edgeFor(t, [appRoute(instances)], { limits: { instance_connections: 2 } });
  for (let i = 0; i < 4; i++) {
    const next = once(arrived, 'request');
    const request = openRequest(edge.port);
    t.after(() => request.destroy());
    request.end();
    await next;
  }
  assert.deepEqual([edge.inFlight('ins_1'), edge.inFlight('ins_2')], [2, 2]);
  const busy = await ask(edge.port, '/', { headers: { accept: 'application/json' } });
  assert.deepEqual([busy.status, busy.headers['retry-after']], [503, '2']);
  assert.equal(JSON.parse(busy.body).error.code, 'BUSY');
  const next = once(arrived, 'request');
  waiting.shift()!.end();
  while (edge.inFlight('ins_1') + edge.inFlight('ins_2') === 4) await new Promise(setImmediate);
  const answer = ask(edge.port, '/');
  await next;
  waiting.at(-1)!.end('room');
  assert.equal((await answer).body, 'room');
});
