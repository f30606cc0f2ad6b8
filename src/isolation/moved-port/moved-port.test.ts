import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, realpath, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { works } from '../../../test/support/programs.ts';
import { choosePort } from '../../engine/ports.ts';
import { layOutPreloads, withMovedPort } from './moved-port.ts';

describe('a moved port', () => {
  let dir: string;
  let preloads: string;
  let declared: number;
  let assigned: number;
  before(async () => {
    // As a data folder may be called.
    dir = join(await realpath(await mkdtemp(join(tmpdir(), 'kiln-moved-'))), 'a "folder"');
    await mkdir(dir);
    preloads = await layOutPreloads(dir);
  });
  // New ones for each: of a closed connection the kernel remembers the port for a minute.
  const taken = new Set<number>();
  beforeEach(async () => {
    declared = await choosePort(null, taken);
    assigned = await choosePort(null, taken);
  });
  after(() => rm(join(dir, '..'), { recursive: true, force: true }));

  /** What a program prints; in its text D is the port that it insists on, and A the one it was given. */
  async function prints(file: string, args: string[], env: Record<string, string> = {}): Promise<string> {
    const base = { PATH: process.env.PATH!, PYTHONDONTWRITEBYTECODE: '1', ...env };
    const { stdout } = await promisify(execFile)(file, args.map(filled), {
      cwd: dir,
      env: withMovedPort(base, { declared, assigned }, preloads),
      timeout: 60_000,
    });
    const names = new Map([
      [declared, 'declared'],
      [assigned, 'assigned'],
    ]);
    return stdout.trim().replace(/\d{5}/g, (digits) => names.get(Number(digits)) ?? digits);
  }
  const filled = (text: string) =>
    text.replaceAll(/\bD\b/g, String(declared)).replaceAll(/\bA\b/g, String(assigned));
  const node = (script: string, env?: Record<string, string>) =>
    prints(process.execPath, ['-e', script], env);
  const SAY = 'function () { console.log(this.address().port); process.exit(); }';

  for (const call of [
    `.listen(D, ${SAY})`,
    `.listen('D', '127.0.0.1', 5, ${SAY})`,
    `.listen(D, '::1', ${SAY})`,
    `.listen({ port: D, host: 'localhost' }, ${SAY})`,
    `.listen(Object.freeze({ port: 'D', exclusive: true }), ${SAY})`,
  ])
    it(`Node: http.createServer()${call.replace(SAY, 'say')}`, async () =>
      assert.equal(await node(`require('http').createServer()${call}`), 'assigned'));

  it('Node: other ports, PORT, pipes and UDP stay as they are', async () => {
    const script = `const net = require('net');
      net.createServer().listen(A, '127.0.0.1', function () {
        console.log(this.address().port); this.close();
        net.createServer().listen(0, function () {
          console.log(this.address().port !== D); this.close();
          net.createServer().listen('./D', function () {
            console.log(this.address()); this.close();
            require('dgram').createSocket('udp4').bind(D, '127.0.0.1', function () {
              console.log(this.address().port); this.close(); }); }); }); });`;
    assert.equal(await node(script), 'assigned\ntrue\n./declared\ndeclared');
  });

  it('Node: modules, TLS, threads, workers of a cluster and children of a shell', async () => {
    const to = (text: string) =>
      writeFile(join(dir, text.split(' ', 1)[0]!), filled(text.slice(text.indexOf(' '))));
    const listens = `.listen(D, function () { console.log(this.address().port); this.close(); })`;
    await to(`m.mjs import { createServer } from 'node:net'; createServer()${listens}`);
    await to(`t.cjs require('tls').createServer()${listens}`);
    await to(`w.cjs const { Worker, isMainThread } = require('worker_threads');
      if (isMainThread) new Worker(__filename); else require('net').createServer()${listens}`);
    await to(`c.cjs const cluster = require('cluster');
      if (cluster.isMaster) { cluster.fork(); } else require('net').createServer().listen(D, function () {
        console.log(this.address().port); process.exit(); });`);
    for (const file of ['m.mjs', 't.cjs', 'w.cjs', 'c.cjs'])
      assert.equal(await prints('sh', ['-c', `"${process.execPath}" ${file}; true`]), 'assigned', file);
  });

  it('Node: a server that calls itself on the port it knows reaches itself, once it listens', async () => {
    const script = `const http = require('http');
      const get = (then) => http.get('http://localhost:D/', (answer) => {
        answer.on('data', (text) => console.log(String(text))).on('end', then); }).on('error', (e) => { console.log(e.code); then(); });
      get(() => http.createServer((q, r) => r.end('itself')).listen(D, () => get(() =>
        fetch('http://127.0.0.1:D').then((answer) => answer.text()).then((text) => { console.log(text); process.exit(); }))));`;
    assert.equal(await node(script), 'ECONNREFUSED\nitself\nitself');
  });

  it('Node: what the app sets in NODE_OPTIONS stays', async () => {
    const script = `console.log(process.env.NODE_OPTIONS.split(' ')[0]); require('net').createServer().listen(D, ${SAY})`;
    assert.equal(await node(script, { NODE_OPTIONS: '--no-warnings' }), '--no-warnings\nassigned');
  });

  describe('Python', { skip: works('python3', '-c', 'import socket') ? false : 'there is no Python' }, () => {
    const python = (script: string, env?: Record<string, string>) => prints('python3', ['-c', script], env);

    it('sockets of both families, http.server and asyncio; other ports and UDP stay as they are', async () => {
      const script = `
import asyncio, http.server, socket
def bound(address, *kind):
    with socket.socket(*kind) as s:
        s.bind(address)
        return s.getsockname()[1]
print(bound(('127.0.0.1', D)), bound(('::1', D, 0, 0), socket.AF_INET6), bound(('127.0.0.1', A)))
print(bound(('127.0.0.1', D), socket.AF_INET, socket.SOCK_DGRAM), bound(('127.0.0.1', 0)) != D)
with http.server.ThreadingHTTPServer(('', D), http.server.SimpleHTTPRequestHandler) as server:
    print(server.server_address[1])
async def serve():
    server = await asyncio.start_server(lambda r, w: w.close(), '127.0.0.1', D)
    print(server.sockets[0].getsockname()[1])
    print(socket.create_connection(('localhost', D)).getpeername()[1])
asyncio.run(serve())`;
      assert.equal(
        await python(script),
        'assigned assigned assigned\ndeclared True\nassigned\nassigned\nassigned',
      );
    });

    it('a connection to the port before anything listened there goes where it says', async () => {
      const script = `
import socket
try:
    socket.create_connection(('127.0.0.1', D))
except ConnectionRefusedError:
    print('refused')`;
      assert.equal(await python(script), 'refused');
    });

    it('the sitecustomize of the app runs too, and an app without one has none', async () => {
      const own = join(dir, 'own');
      await mkdir(own);
      await writeFile(join(own, 'sitecustomize.py'), 'print("own")\nmark = 1\n');
      const script = `import socket, sitecustomize; s = socket.socket(); s.bind(('127.0.0.1', D)); print(s.getsockname()[1], sitecustomize.mark)`;
      assert.equal(await python(script, { PYTHONPATH: own }), 'own\nassigned 1');
    });

    it('an event loop that binds by itself (uvloop) is told the other port', async () => {
      const own = join(dir, 'loops', 'uvloop');
      await mkdir(own, { recursive: true });
      // In uvloop's manner: a method of the class of loops, which knows no socket of Python's.
      const loop = `class Loop:
    async def create_server(self, protocol_factory, host=None, port=None, **more):
        return port, more
`;
      await writeFile(join(own, '__init__.py'), loop);
      const script = `import asyncio, uvloop
run = lambda *a, **b: print(*asyncio.run(uvloop.Loop().create_server(None, *a, **b)))
run('x', D, backlog=3); run(host='x', port=D); run(port=A); run(sock=1)`;
      const PYTHONPATH = join(dir, 'loops');
      assert.equal(
        await python(script, { PYTHONPATH }),
        "assigned {'backlog': 3}\nassigned {}\nassigned {}\nNone {'sock': 1}",
      );
    });
  });

  describe('Ruby', { skip: works('ruby', '-rsocket', '-e', '1') ? false : 'there is no Ruby' }, () => {
    it('TCPServer and Socket; other ports and UDP stay as they are', async () => {
      const script = `
say = ->(socket) { puts socket.local_address.ip_port; socket.close }
say.(TCPServer.new(D)); say.(TCPServer.new('127.0.0.1', D)); say.(TCPServer.open('127.0.0.1', 'D'))
say.(TCPServer.new('127.0.0.1', A)); say.(Addrinfo.tcp('127.0.0.1', D).listen)
Socket.tcp_server_sockets('127.0.0.1', D).each(&say)
other = Socket.new(:INET6, :STREAM); other.bind(Addrinfo.tcp('::1', D)); say.(other)
udp = Socket.new(:INET, :DGRAM); udp.bind(Addrinfo.udp('127.0.0.1', D)); say.(udp)`;
      const expected = [...Array(7).fill('assigned'), 'declared'].join('\n');
      assert.equal(await prints('ruby', ['-rsocket', '-e', script]), expected);
    });
  });
});
