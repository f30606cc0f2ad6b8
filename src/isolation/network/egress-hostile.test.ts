/**
 * What a machine sends and what servers answer is hostile: none of it may end the engine, which runs the proxy. An
 * exception that nobody catches fails the test it happens in.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { openEgress } from './egress.ts';
import { readHostNetwork } from './host-network.ts';
import type { Egress, EgressOptions } from './policy.ts';

describe('egress with hostile sides', () => {
  let dir: string;
  let count = 0;
  let egress: Egress | undefined;
  const servers: Server[] = [];
  const sockets = new Set<Socket>();
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'kiln-egress-'));
  });
  afterEach(async () => {
    await egress?.close();
    for (const socket of sockets) socket.destroy();
    for (const server of servers.splice(0)) server.close();
  });
  after(() => rm(dir, { recursive: true }));

  async function open(port: number, o: Partial<EgressOptions> = {}): Promise<void> {
    egress = await openEgress({
      policy: { mode: 'open', allow: [`here.example:${port}`] },
      socket_path: join(dir, `${count++}.sock`),
      on_refused: () => undefined,
      resolve: async () => ['127.0.0.1'],
      ...o,
    });
  }

  async function listen(on_connection: (socket: Socket) => void): Promise<number> {
    const server = createServer((socket) => {
      sockets.add(socket.on('error', () => undefined));
      on_connection(socket.on('close', () => sockets.delete(socket)));
    });
    servers.push(server.listen(0, '127.0.0.1'));
    await once(server, 'listening');
    return (server.address() as AddressInfo).port;
  }
  /** A server that says this, whatever it is asked, and leaves the connection open. */
  const saying = (text: string) =>
    listen((socket) => socket.once('data', () => socket.write(text, 'latin1')).resume());

  /** Everything that comes back until the proxy ends the connection. */
  async function say(text: string): Promise<string> {
    const socket = connect(egress!.socket_path!).on('error', () => undefined);
    let got = '';
    socket.on('data', (chunk) => {
      got += chunk.toString('latin1');
    });
    socket.write(text, 'latin1');
    if (!socket.destroyed) await once(socket, 'close');
    return got;
  }
  const get = (port: number, more = 'Connection: close\r\n') =>
    `GET http://here.example:${port}/ HTTP/1.1\r\nHost: x\r\n${more}\r\n`;
  async function stillServes(): Promise<void> {
    const port = await saying('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
    await egress!.close();
    await open(port);
    assert.match(await say(get(port)), /^HTTP\/1\.1 200 .*ok$/s);
  }

  const answers: Record<string, string> = {
    'a status that no answer has': 'HTTP/1.1 099 X\r\nContent-Length: 0\r\n\r\n',
    'a status of nothing': 'HTTP/1.1 000 X\r\nContent-Length: 0\r\n\r\n',
    'a protocol that nobody asked for':
      'HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n',
    'a 101 without a protocol': 'HTTP/1.1 101 Switching Protocols\r\n\r\n',
    'something else than HTTP': 'SSH-2.0-x\r\n',
  };
  for (const [name, text] of Object.entries(answers))
    it(`answers 502 to a server that answers ${name}`, async () => {
      const port = await saying(text);
      await open(port);
      assert.match(await say(get(port)), /^HTTP\/1\.1 502 /);
    });

  it('comes to an end with a server that answers twice, or with odd trailers, hints and reasons', async () => {
    for (const text of [
      `${'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'.repeat(2)}`,
      `${'HTTP/1.1 103 Early Hints\r\nLink: \x80\r\n\r\n'.repeat(20)}HTTP/1.1 204 \xff\x80\r\nX: \xe4\t\x80\r\n\r\n`,
      'HTTP/1.1 200 OK\r\nTrailer: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\nX: \x80\r\n\r\n',
      'HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello',
      'HTTP/1.1 999 X\r\nContent-Length: 0\r\nConnection: content-length\r\n\r\n',
    ]) {
      const port = await saying(text);
      await open(port);
      assert.match(await say(get(port)), /^$|^HTTP\/1\.1 \d{3} /, text);
      await egress!.close();
    }
    await stillServes();
  });

  it('takes no tunnel on a connection that still waits for an answer', async () => {
    const port = await listen((socket) => {
      socket.once('data', (chunk) => {
        // The plain request is answered once the tunnel has been asked for.
        if (String(chunk).startsWith('GET')) setImmediate(() => socket.end('HTTP/1.1 200 OK\r\n\r\nlate'));
      });
    });
    await open(port);
    const tunnel = `CONNECT here.example:${port} HTTP/1.1\r\n\r\n`;
    for (const text of [
      get(port, '') + tunnel,
      get(port, '') + get(port, '') + tunnel,
      `${get(port, '')}CONNECT : HTTP/1.1\r\n\r\n`,
      `${get(port, '')}CONNECT nowhere.example:22 HTTP/1.1\r\n\r\n`,
      `GET / HTTP/1.1\r\n\r\n${tunnel}x`,
      `${get(port, '')}\0\0\r\n\r\n`,
    ])
      assert.doesNotMatch(await say(text), /Connection established/, JSON.stringify(text));
    await stillServes();
  });

  it('connects no more often than the limit, however many requests come on one connection', async () => {
    const most = 4;
    let open_now = 0;
    let peak = 0;
    const held: Socket[] = [];
    const port = await listen((socket) => {
      peak = Math.max(peak, ++open_now);
      held.push(socket.resume().on('close', () => open_now--));
    });
    const lines: string[] = [];
    await open(port, { limits: { connections: most }, on_refused: (line) => lines.push(line) });
    const socket = connect(egress!.socket_path!).on('error', () => undefined);
    socket.write(get(port, '').repeat(40));
    while (lines.length === 0 || open_now < most) await new Promise(setImmediate);
    assert.match(lines[0]!, /more than 4 connections at once/);
    assert.equal(peak, most);
    // When the machine leaves, none of them stays, those whose turn to be answered had not come included.
    socket.destroy();
    await Promise.all(held.map((one) => one.destroyed || once(one, 'close')));
    await stillServes();
  });

  it('reads targets and heads of every kind to their end', async () => {
    const port = await saying('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n');
    await open(port);
    const close = 'Connection: close\r\n\r\n';
    const targets = [
      ...[
        'http://',
        'http://:80/',
        'http://[::1',
        'http://[v1.x]/',
        'http://%00/',
        'http://a b/',
        'http://a:0/',
      ],
      ...[
        'http://a:99999/',
        'http://\xff/',
        'HTTP://here.example:1/',
        'http://here.example\\@x/',
        '*',
        '//x/y',
      ],
      ...['http://xn--a/', `http://${'a'.repeat(5000)}/`, 'http://here.example:80:80/', 'constructor'],
    ];
    for (const target of targets)
      assert.match(
        await say(`GET ${target} HTTP/1.1\r\nHost: x\r\n${close}`),
        /^HTTP\/1\.1 [45]\d\d /,
        target,
      );
    for (const target of [
      '*',
      ':',
      '[:443',
      '[::1]',
      'a:',
      ':1',
      '\xff:1',
      `${'9'.repeat(300)}:1`,
      '__proto__:1',
      'a:65536',
    ])
      assert.match(await say(`CONNECT ${target} HTTP/1.1\r\n\r\n`), /^HTTP\/1\.1 [45]\d\d /, target);
    for (const head of [
      `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`,
      `\x16\x03\x01\x02\x00\x01\x00\r\n\r\n`,
      `GET http://here.example:${port}/ HTTP/1.1\r\nHost: x\r\nX: \x80\x7f\r\n${close}`,
      `GET http://here.example:${port}/ HTTP/1.1\r\nExpect: nothing\r\nHost: x\r\n${close}`,
      `POST http://here.example:${port}/ HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n${close}x`,
      `GET http://here.example:${port}/ HTTP/1.1\r\nUpgrade: x\r\nConnection: upgrade, close\r\n\r\n`,
      `TRACE http://here.example:${port}/ HTTP/1.1\r\nTrailer: x\r\nTransfer-Encoding: chunked\r\n${close}0\r\nx: 1\r\n\r\n`,
      `GET http://here.example:${port}/ HTTP/1.0\r\n\r\n`,
      `M-SEARCH http://here.example:${port}/ HTTP/1.1\r\nHost: x\r\n${close}`,
    ])
      await say(head);
    await stillServes();
  });

  it('survives a hostile next hop', async () => {
    for (const text of [...Object.values(answers), 'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nearly', '']) {
      const port = await listen((socket) => {
        socket.once('data', () => socket.end(text)).resume();
      });
      const url = `http://127.0.0.1:${port}`;
      const host = readHostNetwork({ HTTPS_PROXY: url, HTTP_PROXY: url }, { env: {}, files: [], paths: [] });
      await open(port, { host });
      const asked = await say('CONNECT here.example:443 HTTP/1.1\r\nConnection: close\r\n\r\n');
      assert.match(asked, /^HTTP\/1\.1 (200|502|403) /, text);
      await say(get(port));
      await egress!.close();
    }
    await stillServes();
  });
});
