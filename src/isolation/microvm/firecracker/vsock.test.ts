import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rename, rm } from 'node:fs/promises';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it, type TestContext } from 'node:test';
import { openShortFolder } from '../short-path.ts';
import { bridgeGuestTo, connectToGuest, forwardPort, listenForGuest, socketOfPort } from './vsock.ts';

let dir: string;
let count = 0;
before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'kiln-vsock-'));
});
after(() => rm(dir, { recursive: true, force: true }));
const name = () => join(dir, `s${count++}`);

/** Firecracker's half of the handshake; `guest` plays the program that listens in the guest. */
async function fakeVsock(t: TestContext, guest: (port: number, socket: Socket, greet: () => void) => void) {
  const path = name();
  const sockets: Socket[] = [];
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.push(socket.on('error', () => undefined));
    socket.once('data', (chunk) => {
      const port = Number(/^CONNECT (\d+)\n$/.exec(chunk.toString())?.[1]);
      guest(port, socket, () => socket.write(`OK ${2 ** 30}\n`));
    });
  }).listen(path);
  await once(server, 'listening');
  t.after(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return path;
}

async function readAll(socket: Socket): Promise<string> {
  let text = '';
  for await (const chunk of socket) text += chunk;
  return text;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  await new Promise((done) => server.close(done));
  return port;
}

describe('calls to the guest', () => {
  it('speaks the handshake, and what comes with it belongs to the stream', async (t) => {
    const path = await fakeVsock(t, (port, socket) => {
      socket.write(`OK 1073741824\nhello from ${port}`);
      socket.end();
    });
    assert.equal(await readAll(await connectToGuest(path, 52)), 'hello from 52');
  });

  it('a greeting in pieces', async (t) => {
    const path = await fakeVsock(t, async (_, socket) => {
      for (const piece of ['O', 'K 10737', '41824', '\nab', 'c']) {
        socket.write(piece);
        await new Promise((done) => setTimeout(done, 5));
      }
      socket.end();
    });
    assert.equal(await readAll(await connectToGuest(path, 52)), 'abc');
  });

  it('nobody listens, silence, nonsense, no such VM, no such port', async (t) => {
    const closed = await fakeVsock(t, (_, socket) => socket.destroy());
    await assert.rejects(connectToGuest(closed, 52), /nobody in the guest listens on port 52/);
    const silent = await fakeVsock(t, () => undefined);
    await assert.rejects(connectToGuest(silent, 52, 50), /did not take .* within 50 ms/);
    const odd = await fakeVsock(t, (_, socket) =>
      socket.write('SSH-2.0-OpenSSH_9.2p1 Debian-2 and more\r\n'),
    );
    await assert.rejects(connectToGuest(odd, 52), /the answer to CONNECT 52 was "SSH-2.0/);
    await assert.rejects(connectToGuest(join(dir, 'absent'), 52), /ENOENT/);
    await assert.rejects(connectToGuest(silent, 0), /no vsock port/);
    assert.throws(() => socketOfPort(-1), /no vsock port/);
    assert.equal(socketOfPort(3128), 'v.sock_3128');
  });
});

describe('a forwarded port', () => {
  it('carries megabytes both ways at once', async (t) => {
    const path = await fakeVsock(t, (port, socket, greet) => {
      assert.equal(port, 3000);
      greet();
      socket.pipe(socket);
    });
    const host_port = await freePort();
    const forward = await forwardPort({ host_port, socket_path: path, guest_port: 3000 });
    t.after(() => forward.close());
    const visitor = connect({ host: '127.0.0.1', port: host_port });
    const sent = Buffer.alloc(8 * 1024 * 1024, 'kiln');
    visitor.write(sent);
    let got = 0;
    for await (const chunk of visitor) {
      got += chunk.length;
      if (got === sent.length) break;
    }
    assert.equal(got, sent.length);
  });

  it('a visitor who only stops sending still gets the answer', async (t) => {
    // As Firecracker does it: the end of the host's stream is the end of everything.
    const path = await fakeVsock(t, (_, socket, greet) => {
      greet();
      socket.on('end', () => socket.destroy());
      socket.on('data', () => setTimeout(() => socket.end('late answer'), 100));
    });
    const host_port = await freePort();
    const forward = await forwardPort({ host_port, socket_path: path, guest_port: 1, linger_ms: 2000 });
    t.after(() => forward.close());
    const visitor = connect({ host: '127.0.0.1', port: host_port, allowHalfOpen: true });
    visitor.end('question');
    assert.equal(await readAll(visitor), 'late answer');
  });

  it('a visitor who is gone is gone for the guest, too', async (t) => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const path = await fakeVsock(t, (_, socket, greet) => {
      greet();
      socket.on('end', () => resolve()).resume();
    });
    const host_port = await freePort();
    const forward = await forwardPort({ host_port, socket_path: path, guest_port: 1, linger_ms: 50 });
    t.after(() => forward.close());
    const visitor = connect({ host: '127.0.0.1', port: host_port });
    await once(visitor, 'connect');
    visitor.write('x', () => visitor.destroy());
    await promise;
  });

  it('a guest that does not take the visitor resets it; close ends those who are there', async (t) => {
    const refusing = await fakeVsock(t, (_, socket) => socket.destroy());
    const host_port = await freePort();
    const forward = await forwardPort({ host_port, socket_path: refusing, guest_port: 1 });
    const visitor = connect({ host: '127.0.0.1', port: host_port });
    const [error] = (await once(visitor, 'error')) as [NodeJS.ErrnoException];
    assert.equal(error.code, 'ECONNRESET');
    await forward.close();
    await assert.rejects(once(connect({ host: '127.0.0.1', port: host_port }), 'connect'), /ECONNREFUSED/);

    const path = await fakeVsock(t, (_, socket, greet) => {
      greet();
      socket.on('close', () => undefined).resume();
    });
    const second = await forwardPort({ host_port, socket_path: path, guest_port: 1 });
    const guest_less = connect({ host: '127.0.0.1', port: host_port }).on('error', () => undefined);
    await once(guest_less, 'connect');
    const closed = once(guest_less, 'close');
    await second.close();
    await closed;
  });

  it('a port in use is an error', async (t) => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    t.after(() => server.close());
    const { port: host_port } = server.address() as AddressInfo;
    await assert.rejects(forwardPort({ host_port, socket_path: name(), guest_port: 1 }), /EADDRINUSE/);
  });
});

describe('calls from the guest', () => {
  it('reach a Unix socket of the host and come back', async (t) => {
    const [target_path, socket_path] = [name(), name()];
    const proxy = createServer((socket) => {
      socket.once('data', (chunk) => socket.end(`proxied ${chunk}`));
    }).listen(target_path);
    await once(proxy, 'listening');
    t.after(() => proxy.close());
    const bridge = await bridgeGuestTo({ socket_path, target_path });
    t.after(() => bridge.close());
    const answers = Array.from({ length: 50 }, async (_, at) => {
      const guest = connect(socket_path);
      guest.write(`request ${at}`);
      return await readAll(guest);
    });
    assert.deepEqual(
      await Promise.all(answers),
      Array.from({ length: 50 }, (_, at) => `proxied request ${at}`),
    );
  });

  it('a proxy that is not there ends the call; more calls than allowed are dropped', async (t) => {
    const socket_path = name();
    const bridge = await bridgeGuestTo({ socket_path, target_path: join(dir, 'absent') });
    t.after(() => bridge.close());
    assert.equal(await readAll(connect(socket_path)), '');

    const limited = name();
    let accepted = 0;
    const listener = await listenForGuest({
      socket_path: limited,
      max_connections: 2,
      on_connection: () => accepted++,
    });
    t.after(() => listener.close());
    const calls = [1, 2, 3].map(() => connect(limited).on('error', () => undefined));
    await once(calls[2]!, 'close');
    assert.equal(accepted, 2);
    for (const call of calls) call.destroy();
  });

  it('a socket that an engine left behind is replaced, and is gone after close', async () => {
    const socket_path = name();
    const first = await listenForGuest({ socket_path, on_connection: () => undefined });
    const second = await listenForGuest({ socket_path, on_connection: (socket) => socket.end('second') });
    assert.equal(await readAll(connect(socket_path)), 'second');
    await first.close();
    await second.close();
    assert.equal(existsSync(socket_path), false);
  });
});

describe('sockets in deep folders', () => {
  it('are reached through a short name, also after the folder was renamed', async (t) => {
    const deep = join(dir, 'x'.repeat(100), 'y'.repeat(100));
    await mkdir(deep, { recursive: true });
    const folder = openShortFolder(deep);
    t.after(() => folder.close());
    const listener = await listenForGuest({
      socket_path: folder.path(socketOfPort(7)),
      on_connection: (socket) => socket.end('reached'),
    });
    t.after(() => listener.close());
    assert.ok(existsSync(join(deep, 'v.sock_7')));
    assert.equal(await readAll(connect(folder.path('v.sock_7'))), 'reached');
    await rename(deep, join(dir, 'renamed'));
    assert.equal(await readAll(connect(folder.path('v.sock_7'))), 'reached');
  });
});
