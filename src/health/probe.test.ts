import assert from 'node:assert/strict';
import http from 'node:http';
import net, { type AddressInfo } from 'node:net';
import { test } from 'node:test';
import { isHealthy, probe } from './probe.ts';

async function listen(t: { after(fn: () => void): void }, server: net.Server): Promise<number> {
  const sockets = new Set<net.Socket>();
  server.on('connection', (socket) => sockets.add(socket));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

const at = (port: number, path = '/') => ({ host: '127.0.0.1', port, path, timeout_ms: 2000 });

test('a 2xx is healthy; the request names itself and localhost', async (t) => {
  let seen: http.IncomingHttpHeaders = {};
  const server = http.createServer((req, res) => {
    seen = req.headers;
    res.writeHead(204).end();
  });
  const answer = await probe(at(await listen(t, server)));
  assert.equal(answer.status, 204);
  assert.equal(answer.error, null);
  assert.equal(isHealthy(answer), true);
  assert.equal(seen.host, 'localhost');
  assert.equal(seen['user-agent'], 'kiln-health/1');
});

test('an app that has a page for people and refuses other GETs answers its page', async (t) => {
  const server = http.createServer((req, res) => {
    res.writeHead(/^text\/html/.test(req.headers.accept ?? '') ? 200 : 400).end();
  });
  assert.equal((await probe(at(await listen(t, server)))).status, 200);
});

test('an app that forces https is asked as the edge asks it behind TLS, so trusting the edge is enough', async (t) => {
  const server = http.createServer((req, res) => {
    const secure = req.headers['x-forwarded-proto'] === 'https';
    res.writeHead(secure ? 200 : 301, secure ? {} : { location: `https://${req.headers.host}/` }).end();
  });
  assert.equal((await probe(at(await listen(t, server)))).status, 200);
});

test('a redirect is reported, not followed', async (t) => {
  const paths: string[] = [];
  const server = http.createServer((req, res) => {
    paths.push(req.url!);
    res.writeHead(302, { location: '/login' }).end();
  });
  const answer = await probe(at(await listen(t, server)));
  assert.equal(answer.status, 302);
  assert.equal(answer.location, '/login');
  assert.equal(isHealthy(answer), false);
  assert.deepEqual(paths, ['/']);
});

test('an endless body is not read: the answer is there with the headers, and the connection ends', async (t) => {
  let closed: () => void;
  const ended = new Promise<void>((resolve) => {
    closed = resolve;
  });
  const server = http.createServer((_req, res) => {
    res.writeHead(200);
    const timer = setInterval(() => res.write('x'.repeat(1024)), 5);
    res.on('close', () => {
      clearInterval(timer);
      closed();
    });
  });
  const answer = await probe(at(await listen(t, server)));
  assert.equal(answer.status, 200);
  await ended;
});

test('each probe has its own connection', async (t) => {
  let connections = 0;
  const server = http.createServer((_req, res) => res.end('ok'));
  server.on('connection', () => connections++);
  const port = await listen(t, server);
  await probe(at(port));
  await probe(at(port));
  assert.equal(connections, 2);
});

test('failures are values: refused, silent, not HTTP, huge headers, reset, aborted, impossible path', async (t) => {
  const closed = net.createServer();
  const free = await listen({ after: () => {} }, closed);
  await new Promise((resolve) => closed.close(resolve));
  assert.equal((await probe(at(free))).error, 'refused');

  const silent = await listen(
    t,
    net.createServer(() => {}),
  );
  assert.equal((await probe({ ...at(silent), timeout_ms: 60 })).error, 'timed out');
  assert.equal((await probe({ ...at(silent), signal: AbortSignal.timeout(30) })).error, 'aborted');
  assert.equal((await probe({ ...at(silent), signal: AbortSignal.abort() })).error, 'aborted');
  assert.equal((await probe(at(silent, '/sp ace'))).error, 'failed');

  const ssh = await listen(
    t,
    net.createServer((socket) => socket.end('SSH-2.0-x\r\n')),
  );
  assert.equal((await probe(at(ssh))).error, 'not http');

  const huge = await listen(
    t,
    net.createServer((socket) => {
      socket.on('error', () => {});
      socket.write(`HTTP/1.1 200 OK\r\nx: ${'a'.repeat(64 * 1024)}\r\n\r\n`);
    }),
  );
  assert.equal((await probe(at(huge))).error, 'not http');

  const reset = await listen(
    t,
    net.createServer((socket) => {
      socket.once('data', () => socket.resetAndDestroy());
    }),
  );
  assert.equal((await probe(at(reset))).error, 'reset');
});
