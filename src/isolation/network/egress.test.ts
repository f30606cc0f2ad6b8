import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { createServer as createHttp, type RequestListener } from 'node:http';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { openEgress } from './egress.ts';
import { readHostNetwork } from './host-network.ts';
import type { Egress, EgressOptions } from './policy.ts';

/** Names for the tests; the services themselves are on this host, which only `allow` opens. */
const NAMES: Record<string, string[]> = {
  'here.example': ['127.0.0.1'],
  'metadata.example': ['169.254.169.254'],
  'private.example': ['10.1.2.3', 'fd00::1', '::ffff:192.168.0.1'],
};

describe('egress', () => {
  let dir: string;
  let lines: string[];
  const opened: (Egress | Server)[] = [];
  let count = 0;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'kiln-egress-'));
  });
  afterEach(async () => {
    for (const one of opened.splice(0)) {
      if ('serve' in one) await one.close();
      else one.close();
    }
  });
  after(() => rm(dir, { recursive: true }));

  async function open(o: Partial<EgressOptions> & { allow?: string[] } = {}): Promise<Egress> {
    lines = [];
    const egress = await openEgress({
      policy: { mode: 'open', allow: o.allow ?? [] },
      socket_path: join(dir, `${count++}.sock`),
      on_refused: (line) => lines.push(line),
      resolve: async (name) => NAMES[name] ?? Promise.reject(new Error(`no such name: ${name}`)),
      ...o,
    });
    opened.push(egress);
    return egress;
  }
  async function listen(server: Server): Promise<number> {
    opened.push(server);
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return (server.address() as AddressInfo).port;
  }
  const web = (handle: RequestListener) => listen(createHttp(handle));
  const echo = () => listen(createServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket)));

  /** Sends text as it is; everything that came back until the other side ended. */
  async function say(egress: Egress, text: string, o: { end?: boolean } = {}): Promise<string> {
    const socket = connect(egress.socket_path!);
    let got = '';
    socket.on('data', (chunk) => {
      got += chunk.toString('latin1');
    });
    socket.on('error', () => undefined);
    if (o.end) socket.end(text);
    else socket.write(text);
    await Promise.race([
      new Promise((done) => socket.once('close', done)),
      sleep(5000, undefined, { ref: false }),
    ]);
    socket.destroy();
    return got;
  }
  const ask = (egress: Egress, url: string, headers = '') =>
    say(egress, `GET ${url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n${headers}\r\n`);
  async function tunnel(egress: Egress, target: string): Promise<Socket> {
    const socket = connect({ path: egress.socket_path!, allowHalfOpen: true });
    socket.on('error', () => undefined);
    socket.write(`CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\n\r\n`);
    const [answer] = await once(socket, 'data');
    assert.match(String(answer), /^HTTP\/1\.1 200 /);
    return socket;
  }

  it('tunnels bytes both ways and counts them', async () => {
    const port = await echo();
    const egress = await open({ allow: [`here.example:${port}`] });
    const socket = await tunnel(egress, `here.example:${port}`);
    socket.write('ping');
    assert.equal(String((await once(socket, 'data'))[0]), 'ping');
    // Half closed: what was sent last still comes back.
    socket.end('last');
    assert.equal(String((await once(socket, 'data'))[0]), 'last');
    await once(socket, 'end');
    const contact = { host: 'here.example', port, connections: 1, refused: null, bytes_in: 8, bytes_out: 8 };
    assert.deepEqual(egress.contacts(), [contact]);
    assert.equal((await stat(egress.socket_path!)).mode & 0o777, 0o600);
    await egress.close();
    assert.equal(existsSync(egress.socket_path!), false);
    assert.deepEqual(egress.contacts(), [contact]);
  });

  it('passes bytes that came with CONNECT itself', async () => {
    const port = await echo();
    const egress = await open({ allow: [`here.example:${port}`] });
    const got = await say(egress, `CONNECT here.example:${port} HTTP/1.1\r\n\r\nearly`, { end: true });
    assert.match(got, /^HTTP\/1\.1 200 .*\r\n\r\nearly$/s);
  });

  it('forwards plain requests with the headers that go from end to end', async () => {
    let seen: string[] = [];
    const port = await web((request, response) => {
      seen = request.rawHeaders;
      response.writeHead(201, [
        'X-One',
        '1',
        'Connection',
        'x-hop',
        'X-Hop',
        '1',
        'Set-Cookie',
        'a',
        'Set-Cookie',
        'b',
      ]);
      request.pipe(response);
    });
    const egress = await open({ allow: [`here.example:${port}`] });
    const got = await say(
      egress,
      `POST http://user:pw@here.example:${port}/p?q HTTP/1.1\r\nHost: evil.example\r\nProxy-Authorization: Basic x\r\nConnection: close, X-Secret, Content-Length\r\nX-Secret: 1\r\nX-Kept: 1\r\nTE: trailers\r\nContent-Length: 4\r\n\r\nbody`,
    );
    assert.match(got, /^HTTP\/1\.1 201 .*\r\n\r\n(4\r\nbody\r\n0\r\n\r\n|body)$/s);
    assert.match(got, /Set-Cookie: a\r\nSet-Cookie: b/);
    assert.doesNotMatch(got, /x-hop/i);
    assert.deepEqual(seen, [
      ...['host', `here.example:${port}`, 'connection', 'close', 'X-Kept', '1', 'content-length', '4'],
    ]);
    assert.deepEqual(
      egress.contacts().map((one) => [one.host, one.refused]),
      [['here.example', null]],
    );
  });

  it('refuses this host, link-local and private addresses after resolving, and says so once', async () => {
    const port = await web((_, response) => response.end('ESCAPED'));
    const egress = await open();
    const urls = [
      ...[
        `http://127.0.0.1:${port}/`,
        'http://localhost/',
        'http://127.1/',
        'http://2130706433/',
        'http://0/',
      ],
      ...['http://[::1]/', 'http://[::ffff:127.0.0.1]/', 'http://169.254.169.254/latest/meta-data/'],
      ...[
        'http://metadata.example/',
        'http://private.example/',
        'http://here.example/',
        'http://0x7f.0.0.1/',
      ],
    ];
    for (const url of urls) assert.match(await ask(egress, url), /^HTTP\/1\.1 (403|502) /, url);
    for (const target of [
      '127.0.0.1:443',
      '[::1]:443',
      '[::ffff:a9fe:a9fe]:80',
      'here.example:443',
      '10.0.0.1:443',
    ])
      assert.match(await say(egress, `CONNECT ${target} HTTP/1.1\r\n\r\n`), /^HTTP\/1\.1 403 /, target);
    await ask(egress, 'http://metadata.example/');
    assert.deepEqual(
      lines.filter((line) => line.includes('metadata.')),
      [
        'network: metadata.example:80 is refused: its address is link-local, where metadata services are. Whoever runs Kiln can allow it with --network-allow 169.254.169.254',
      ],
    );
    const contact = egress.contacts().find((one) => one.host === 'metadata.example');
    assert.deepEqual([contact?.connections, contact?.bytes_in], [2, 0]);
  });

  it('connects to exactly the address it checked, whatever the name says next', async () => {
    const port = await web((_, response) => response.end('ESCAPED'));
    let asked = 0;
    // The first answer is harmless, each later one is this host.
    const resolve = async () => (asked++ === 0 ? ['240.0.0.1', '198.51.100.1'] : ['127.0.0.1']);
    const egress = await open({ resolve, allow: [`*.example:${port}`], limits: { connect_ms: 300 } });
    assert.doesNotMatch(await ask(egress, `http://re.bind.example:${port}/`), /ESCAPED| 403 /);
    assert.equal(asked, 1);
    assert.match(await ask(egress, `http://re.bind.example:${port}/`), / 403 .*this host itself/s);
  });

  it('names the policy and the way to allow in refusals of each mode', async () => {
    const registries = await open({ policy: { mode: 'registries', allow: [] } });
    assert.match(await ask(registries, 'http://evil.example/'), /403 .*--network-allow evil\.example/s);
    const none = await open({ policy: { mode: 'none', allow: ['here.example'] } });
    assert.match(await ask(none, 'http://here.example/'), /403 .*builds here have no network/s);
    assert.match(lines[0]!, /here\.example:80 is refused/);
    const web_only = await open();
    assert.match(
      await say(web_only, 'CONNECT a.example:22 HTTP/1.1\r\n\r\n'),
      /--network-allow a\.example:22/,
    );
  });

  it('refuses requests that can be read in two ways', async () => {
    let reached = 0;
    const port = await web((_, response) => {
      reached++;
      response.end('ok');
    });
    const egress = await open({ allow: [`here.example:${port}`] });
    const start = `POST http://here.example:${port}/ HTTP/1.1\r\nHost: x\r\n`;
    const attacks = [
      'Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX',
      'Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!',
      'Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n',
      'Transfer-Encoding: chunked\r\n\r\nZZ\r\nx\r\n0\r\n\r\n',
      'Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n',
      'X: a\nContent-Length: 0\n\r\n\r\n',
      'Content-Length: -1\r\n\r\n',
      'X: a\0b\r\n\r\n',
    ];
    for (const attack of attacks) {
      const got = await say(egress, start + attack, { end: true });
      assert.equal(got.match(/HTTP\/1\.1 200/g)?.length ?? 0, 0, `${JSON.stringify(attack)} → ${got}`);
    }
    for (const line of ['GET / HTTP/1.1', 'GET https://a.example/ HTTP/1.1', 'GET ftp://a.example/ HTTP/1.1'])
      assert.match(
        await say(egress, `${line}\r\nHost: x\r\nConnection: close\r\n\r\n`),
        /^HTTP\/1\.1 400 /,
        line,
      );
    for (const target of ['a.example', 'a.example:443@127.0.0.1:80', '/etc/passwd:1', '@:1'])
      assert.match(await say(egress, `CONNECT ${target} HTTP/1.1\r\n\r\n`), /^HTTP\/1\.1 400 /, target);
    assert.ok(reached <= 2, `${reached}`);
  });

  it('does not pass on answers that can be read in two ways', async () => {
    const bad = 'HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n';
    const port = await listen(createServer((socket) => socket.end(bad)));
    const egress = await open({ allow: [`here.example:${port}`] });
    assert.match(await ask(egress, `http://here.example:${port}/`), /^HTTP\/1\.1 502 /);
  });

  it('ends slow and silent clients, long heads and too many connections', async () => {
    const port = await echo();
    const limits = { header_ms: 300, idle_ms: 400, header_bytes: 2048, connections: 3 };
    const egress = await open({ allow: [`here.example:${port}`], limits });
    const started = performance.now();
    assert.match(await say(egress, 'GET http://a.example/ HTT'), /^HTTP\/1\.1 4|^$/);
    assert.match(await ask(egress, 'http://here.example/', `X: ${'x'.repeat(5000)}\r\n`), /^HTTP\/1\.1 4/);
    const idle = await tunnel(egress, `here.example:${port}`);
    await once(idle, 'end');
    assert.ok(performance.now() - started < 4000);
    await sleep(50);
    const many = await Promise.all([1, 2, 3].map(() => tunnel(egress, `here.example:${port}`)));
    assert.equal(await ask(egress, 'http://here.example/'), '');
    assert.match(lines.at(-1)!, /more than 3 connections at once/);
    for (const socket of many) socket.destroy();
  });

  it('lets go of both sides when one breaks off', async () => {
    const sockets = new Set<Socket>();
    const port = await listen(
      createServer((socket) => {
        sockets.add(socket);
        socket
          .resume()
          .on('error', () => undefined)
          .on('close', () => sockets.delete(socket));
        socket.write('HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nstart');
      }),
    );
    const egress = await open({ allow: [`here.example:${port}`], limits: { half_open_ms: 200 } });
    for (const first of [
      `GET http://here.example:${port}/ HTTP/1.1\r\nHost: x\r\n\r\n`,
      `CONNECT here.example:${port} HTTP/1.1\r\n\r\n`,
    ]) {
      const client = connect(egress.socket_path!);
      client.write(first);
      await once(client, 'data');
      client.destroy();
      for (let tries = 0; sockets.size > 0 && tries < 200; tries++) await sleep(10);
      assert.equal(sockets.size, 0);
      // And the other way round: the server breaks off in the middle of an answer.
      const second = connect(egress.socket_path!);
      second.on('error', () => undefined).write(first);
      await once(second, 'data');
      for (const socket of sockets) socket.resetAndDestroy();
      await once(second, 'close');
    }
  });

  it('stops at the limit on bytes', async () => {
    const port = await listen(
      createServer((socket) => {
        const more = () => void (socket.destroyed || socket.write(Buffer.alloc(64 * 1024), more));
        socket.on('error', () => undefined);
        more();
      }),
    );
    const limits = { total_bytes: 1_000_000 };
    const egress = await open({ allow: [`here.example:${port}`], limits });
    const socket = await tunnel(egress, `here.example:${port}`);
    socket.resume();
    await Promise.race([once(socket, 'end'), once(socket, 'close')]);
    assert.match(
      await say(egress, `CONNECT here.example:${port} HTTP/1.1\r\n\r\n`),
      /403 .*more than 1000000 bytes/s,
    );
  });

  it('goes through the proxy that the host itself uses, with its credentials', async () => {
    const seen: string[] = [];
    const upstream = createHttp((request, response) => {
      seen.push(`${request.url} ${request.headers['proxy-authorization']}`);
      response.end('from upstream');
    });
    upstream.on('connect', (request, socket) => {
      seen.push(`${request.url} ${request.headers['proxy-authorization']}`);
      if (request.url?.startsWith('no.')) return void socket.end('HTTP/1.1 407 No\r\n\r\n');
      socket.write('HTTP/1.1 200 OK\r\n\r\n');
      socket.pipe(socket);
    });
    const port = await listen(upstream);
    const url = `http://me:secret@127.0.0.1:${port}`;
    const host_env = { HTTPS_PROXY: url, http_proxy: url, NO_PROXY: 'direct.example,10.0.0.0/8' };
    const host = readHostNetwork(host_env, { env: {}, files: [], paths: [] });
    const egress = await open({ host });
    assert.match(await ask(egress, 'http://unknown.example/x?y'), /from upstream$/s);
    const socket = await tunnel(egress, 'unknown.example:443');
    socket.write('hello');
    assert.equal(String((await once(socket, 'data'))[0]), 'hello');
    assert.match(await say(egress, 'CONNECT no.example:443 HTTP/1.1\r\n\r\n'), /502 .*answered 407/s);
    const authorization = `Basic ${Buffer.from('me:secret').toString('base64')}`;
    assert.deepEqual(seen, [
      `http://unknown.example/x?y ${authorization}`,
      `unknown.example:443 ${authorization}`,
      `no.example:443 ${authorization}`,
    ]);
    // A name that resolves here to what is refused does not get out through it, nor does what goes around it.
    assert.match(await ask(egress, 'http://metadata.example/'), /^HTTP\/1\.1 403 /);
    assert.match(await ask(egress, 'http://direct.example/'), /^HTTP\/1\.1 502 /);
    assert.equal(host.upstream({ host: '10.2.3.4', port: 443 }, 'https'), null);
    assert.equal(seen.length, 3);
  });

  it('lets machines reach the mirrors that the host is pointed at', () => {
    const env = {
      ...{ GOPROXY: 'http://go.corp:8081/mod,direct', PIP_INDEX_URL: 'https://pypi.corp/simple' },
      ...{ GOSUMDB: 'sum.corp', HTTPS_PROXY: 'http://proxy.corp:3128', PIP_CERT: '/ca.pem' },
    };
    const files = [{ path: '.npmrc', text: 'registry=http://[fd00::5]:4873/\nproxy=http://proxy.corp:1\n' }];
    assert.deepEqual(readHostNetwork({}, { env, files, paths: [] }).registries.toSorted(), [
      ...['[fd00::5]:4873', 'go.corp:8081', 'pypi.corp:443', 'sum.corp:443'],
    ]);
  });
});
