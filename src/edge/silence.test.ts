/** Who is waited for: an instance that is silent is given up, a client that takes nothing is cut, the rest is patience. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import net from 'node:net';
import { buffer } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import {
  appInstance,
  appRoute,
  ask,
  askRaw,
  edgeFor,
  edgeForApp,
  HOST,
  MemoryObjects,
  openRequest,
  staticRoute,
} from './fixture.ts';
import { SilenceClock } from './silence.ts';

/** More than the kernel keeps for a connection that nobody reads. */
const MUCH = Buffer.alloc(40_000_000, 'much ');
const SILENT = 'an instance did not answer in time';
const UPGRADE = `GET /big HTTP/1.1\r\nHost: ${HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`;

test('the time of others does not count', async () => {
  let waits_for_instance = false;
  let looked = 0;
  await new Promise<void>((resolve) => {
    const clock = new SilenceClock({
      ms: 10,
      waits_for_instance: () => {
        waits_for_instance = ++looked === 3;
        return waits_for_instance;
      },
      on_silence: resolve,
    });
    clock.restart();
  });
  assert.equal(looked, 3);
});

test('time in which the edge itself could not listen does not count', async (t) => {
  const answered = new Int32Array(new SharedArrayBuffer(4));
  const app = new Worker(
    `const { parentPort, workerData } = require('node:worker_threads');
    const server = require('node:http').createServer((_req, res) => {
      parentPort.postMessage('asked');
      setTimeout(() => res.end('answer', () => Atomics.notify(workerData, 0, Atomics.add(workerData, 0, 1) + 1)), 20);
    });
    server.listen(0, '127.0.0.1', () => parentPort.postMessage(server.address().port));`,
    { eval: true, workerData: answered },
  );
  t.after(() => app.terminate());
  const [port] = (await once(app, 'message')) as [number];
  const instance = { id: 'ins_1', host: '127.0.0.1', port };
  const limits = { first_byte_timeout_ms: 2000 };
  const { edge } = await edgeFor(t, [appRoute([instance])], { limits });
  const asked = once(app, 'message');
  const answer = ask(edge.port, '/');
  await asked;
  Atomics.wait(answered, 0, 0);
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, limits.first_byte_timeout_ms);
  assert.equal((await answer).body, 'answer');
});

/** Sends the request, reads nothing, and resolves once the edge (which takes one connection only) has let it go. */
async function untilCut(port: number, request: string): Promise<void> {
  const stuck = net.connect(port, '127.0.0.1').on('error', () => {});
  stuck.pause().write(request);
  await once(stuck, 'connect');
  for (;;) {
    try {
      await ask(port, '/small');
      break;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
  const received = await buffer(stuck).catch(() => 'reset');
  assert.ok(received === 'reset' || received.length < MUCH.length);
}

test('a client that takes nothing of a static file is cut', { timeout: 60_000 }, async (t) => {
  const objects = new MemoryObjects();
  const route = await staticRoute(objects, { big: MUCH, small: 'x' });
  const limits = { silence_timeout_ms: 100, connections: 1 };
  const { edge } = await edgeFor(t, [route], { objects, limits });
  await untilCut(edge.port, `GET /big HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`);
});

test('a client that takes nothing of an app’s answer is cut, and the app is not blamed', {
  timeout: 60_000,
}, async (t) => {
  const server = http.createServer((req, res) => res.end(req.url === '/big' ? MUCH : 'x'));
  const answer = Buffer.concat([
    Buffer.from(`HTTP/1.1 200 OK\r\nContent-Length: ${MUCH.length}\r\n\r\n`),
    MUCH,
  ]);
  server.on('upgrade', (_req, socket) => {
    socket.on('error', () => {});
    socket.end(answer);
  });
  // The app is in this process: what holds both up on a busy machine must not be taken for the app's silence.
  const limits = { silence_timeout_ms: 1000, connections: 1 };
  const { edge, logged } = await edgeForApp(t, server, limits);
  await untilCut(edge.port, `GET /big HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`);
  await untilCut(edge.port, UPGRADE);
  assert.equal(await edge.onIdle('ins_1', 5000), true);
  assert.ok(!logged.some((line) => line.message === SILENT), JSON.stringify(logged));
});

test('a slow upload is no silence of the app; a body that the app does not take is', async (t) => {
  const app = await appInstance(t, 'ins_1', async (req, res) => void res.end(await buffer(req)));
  const deaf = await appInstance(t, 'ins_2', net.createServer({ pauseOnConnect: true }));
  const routes = [appRoute([app]), appRoute([deaf], { slug: 'deaf' })];
  const { edge } = await edgeFor(t, routes, { limits: { first_byte_timeout_ms: 100 } });
  const upload = openRequest(edge.port, { method: 'POST' });
  upload.write('slow ');
  await new Promise((resolve) => setTimeout(resolve, 400));
  upload.end('upload');
  const [response] = (await once(upload, 'response')) as [http.IncomingMessage];
  assert.deepEqual([response.statusCode, String(await buffer(response))], [200, 'slow upload']);

  const headers = { host: 'deaf.acme.localhost', 'content-length': MUCH.length };
  const refused = openRequest(edge.port, { method: 'POST', headers });
  const answered = once(refused, 'response') as Promise<[http.IncomingMessage]>;
  refused.write(MUCH.subarray(0, -1)); // never all of it
  assert.equal((await answered)[0].statusCode, 504);
  refused.destroy();
  assert.equal(await edge.onIdle('ins_2', 5000), true);
});

test('a stream may pause while the client still sends', async (t) => {
  const { port } = await edgeForApp(
    t,
    async (req, res) => {
      res.write('begun ');
      res.end(await buffer(req));
    },
    { silence_timeout_ms: 100 },
  );
  const request = openRequest(port, { method: 'POST' });
  request.flushHeaders();
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  await new Promise((resolve) => setTimeout(resolve, 400));
  request.end('done');
  assert.equal(String(await buffer(response)), 'begun done');
});

test('an app that is silent in the middle of an answer, or of an upgrade', async (t) => {
  const server = http.createServer((_req, res) => void res.write('some'));
  server.on('upgrade', (_req, socket) => socket.on('error', () => {}));
  const limits = { silence_timeout_ms: 100, first_byte_timeout_ms: 100 };
  const { port, edge, logged } = await edgeForApp(t, server, limits);
  await assert.rejects(ask(port, '/'), /broke off|aborted|ECONNRESET/);
  assert.match(await askRaw(port, UPGRADE), /^HTTP\/1\.1 504 /);
  assert.deepEqual(
    logged.map((line) => line.message),
    [SILENT, SILENT],
  );
  assert.equal(await edge.onIdle('ins_1', 5000), true);
});

/** A port whose queue of connections is full: the next one neither stands nor fails. */
async function unconnectable(t: TestContext): Promise<number> {
  const worker = new Worker(
    `const { parentPort } = require('node:worker_threads');
    const server = require('node:net').createServer().listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => {
      parentPort.postMessage(server.address().port);
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
    });`,
    { eval: true },
  );
  t.after(() => worker.terminate());
  const [port] = (await once(worker, 'message')) as [number];
  const fill = Array.from({ length: 16 }, () => net.connect(port, '127.0.0.1').on('error', () => {}));
  t.after(() => fill.map((socket) => socket.destroy()));
  await once(fill[0]!, 'connect');
  return port;
}

test('what cannot be connected to in time is left for the next instance', async (t) => {
  const stuck = { id: 'ins_1', host: '127.0.0.1', port: await unconnectable(t) };
  const server = http.createServer((_req, res) => res.end('page'));
  server.on('upgrade', (_req, socket) => {
    socket.on('error', () => {});
    socket.end('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nraw');
  });
  const good = await appInstance(t, 'ins_2', server);
  const routes = [appRoute([stuck, good]), appRoute([stuck], { slug: 'stuck' })];
  const { edge } = await edgeFor(t, routes, {
    limits: { connect_timeout_ms: 100, first_byte_timeout_ms: 20_000 },
  });
  // Two of each: whichever instance has its turn first.
  for (let i = 0; i < 2; i++) {
    assert.match(await askRaw(edge.port, UPGRADE), /^HTTP\/1\.1 101 [\s\S]*raw$/);
    assert.equal((await ask(edge.port, '/')).body, 'page');
  }
  const host = 'stuck.acme.localhost';
  assert.match(await askRaw(edge.port, UPGRADE.replace(HOST, host)), /^HTTP\/1\.1 502 /);
  assert.equal((await ask(edge.port, '/', { headers: { host } })).status, 502);
  assert.equal(edge.inFlight('ins_1'), 0);
});
