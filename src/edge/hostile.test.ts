/** What clients and apps may send without doing harm: the edge answers or cuts, and is there for the next one. */
import assert from 'node:assert/strict';
import http from 'node:http';
import net from 'node:net';
import { type TestContext, test } from 'node:test';
import {
  appInstance,
  appRoute,
  ask,
  edgeFor,
  edgeForApp,
  HOST,
  MemoryObjects,
  staticRoute,
} from './fixture.ts';

/** Sends raw bytes and resolves to what came back until the connection ended, in whatever way. */
function say(port: number, bytes: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1');
    let text = '';
    socket.setEncoding('latin1').on('data', (chunk) => {
      text += chunk;
    });
    socket.on('error', () => {}).once('close', () => resolve(text));
    socket.write(bytes, 'latin1');
  });
}

const get = (host = HOST, url = '/', more = '') => `GET ${url} HTTP/1.1\r\nHost: ${host}\r\n${more}\r\n`;
const upgrade = (host = HOST) =>
  `GET /ws HTTP/1.1\r\nHost: ${host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`;

/** An app that upgrades what asks for it, and never answers /wait. */
function upgrading(): http.Server {
  const server = http.createServer((req, res) => void (req.url === '/wait' || res.end('page')));
  server.on('upgrade', (_req, socket) => {
    socket.on('error', () => {});
    socket.end('HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nraw');
  });
  return server;
}

/** Apps that answer with exactly these bytes, each the host `<name>.acme.localhost`. */
async function apps(t: TestContext, answers: Record<string, string>, then: 'end' | 'stay' = 'stay') {
  const instances = await Promise.all(
    Object.entries(answers).map(([slug, bytes]) => {
      const server = net.createServer((socket) => {
        socket.on('error', () => {});
        socket.once('data', () => {
          socket.write(bytes, 'latin1');
          if (then === 'end') socket.end();
        });
      });
      return appInstance(t, slug, server);
    }),
  );
  return instances.map((instance) => appRoute([instance], { slug: instance.id }));
}

test('CONNECT or an upgrade behind an unanswered request ends that connection, nothing else', async (t) => {
  const objects = new MemoryObjects();
  const pages = await staticRoute(objects, { 'index.html': 'home' }, { slug: 'pages' });
  const instance = await appInstance(t, 'ins_1', upgrading());
  const { edge } = await edgeFor(t, [pages, appRoute([instance])], { objects });
  const hosts = [HOST, 'pages.acme.localhost', 'nobody.acme.localhost'];
  const firsts = [...hosts.map((host) => get(host)), get(HOST, '/wait'), 'GET / HTTP/1.1\r\n\r\n'];
  firsts.push(`GET / HTTP/1.1\r\nHost: ${HOST}\r\nExpect: wonders\r\n\r\n`);
  const seconds = ['CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n', ...hosts.map((host) => upgrade(host))];
  for (const first of firsts) {
    for (const second of seconds) {
      const text = await say(edge.port, first + second);
      assert.doesNotMatch(text, /101 Switching[\s\S]*HTTP/, `${first}${second}`);
      assert.doesNotMatch(text, /page[\s\S]*raw|home[\s\S]*raw/, `${first}${second}`);
    }
  }
  assert.equal((await ask(edge.port, '/')).body, 'page');
  assert.equal(await edge.onIdle('ins_1', 5000), true);
});

test('CONNECT and an upgrade after an answered request are answered', async (t) => {
  const { port } = await edgeForApp(t, upgrading());
  for (const [second, expected] of [
    ['CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n', /400 Bad Request/],
    [upgrade('nobody.acme.localhost'), /404 Not Found/],
    [upgrade(), /101 Switching Protocols[\s\S]*raw$/],
  ] as const) {
    const socket = net.connect(port, '127.0.0.1');
    socket.write(get());
    let text = '';
    let asked = false;
    for await (const chunk of socket) {
      text += chunk;
      if (text.endsWith('page') && !asked) asked = socket.write(second);
    }
    assert.match(text, expected);
  }
});

/** Answers that break off, or that Node does not pass on as they are. */
const BROKEN = {
  chunks: 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense\r\n',
  reason: 'HTTP/1.1 200 O\x01K\r\nContent-Length: 5\r\n\r\nhello',
  status: 'HTTP/1.1 099 Low\r\nContent-Length: 5\r\n\r\nhello',
};

test('an app may answer an upgrade in any way', async (t) => {
  const answers = {
    ...BROKEN,
    stalls: 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello',
    garbles: 'nonsense\r\n\r\n',
    informs: 'HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n',
    half: 'HTTP/1.1 101 Switching Protocols\r\n\r\n',
  };
  const limits = { first_byte_timeout_ms: 100, silence_timeout_ms: 100 };
  const { edge } = await edgeFor(t, await apps(t, answers), { limits });
  for (const name of Object.keys(answers)) {
    const text = await say(edge.port, upgrade(`${name}.acme.localhost`));
    assert.doesNotMatch(text, /[\s\S]HTTP\/1/, name);
    if (name === 'chunks' || name === 'stalls') assert.match(text, /^HTTP\/1\.1 200 OK\r\n/, name);
    else assert.match(text, name === 'informs' ? /^HTTP\/1\.1 504 / : /^HTTP\/1\.1 502 /, name);
    assert.equal(await edge.onIdle(name, 5000), true, name);
  }
});

test('an app may answer a request in any way', async (t) => {
  const answers = {
    ...BROKEN,
    high: 'HTTP/1.1 999 High\r\nContent-Length: 5\r\n\r\nhello',
    header: 'HTTP/1.1 200 OK\r\nX-\x7f: 1\r\n\r\n',
    trailer:
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-\xff: \xff\r\nContent-Length: 3\r\n\r\n',
    upgrades: 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nraw',
    half: 'HTTP/1.1 101 Switching Protocols\r\n\r\n',
  };
  const { edge } = await edgeFor(t, await apps(t, answers, 'end'));
  for (const name of Object.keys(answers)) {
    const text = await say(edge.port, get(`${name}.acme.localhost`, '/', 'Connection: close\r\n'));
    if (name === 'chunks' || name === 'trailer') assert.match(text, /^HTTP\/1\.1 200 OK\r\n/, name);
    else if (name === 'high') assert.match(text, /^HTTP\/1\.1 999 High\r\n/, name);
    else assert.match(text, /^HTTP\/1\.1 502 Bad Gateway\r\n/, name);
    assert.equal(await edge.onIdle(name, 5000), true, name);
  }
});
