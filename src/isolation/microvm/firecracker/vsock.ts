import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';

/**
 * The host's side of Firecracker's vsock: a Unix socket per VM (`v.sock`).
 *
 * - The host calls the guest: connect to `v.sock`, send `CONNECT <port>\n`, read `OK <port>\n`; then it is a stream.
 * - The guest calls the host (context id 2, port N): Firecracker connects to `v.sock_N`, where the host listens.
 *
 * Firecracker takes the end of the host's stream as the end of both directions: the guest gets no more than 2 s to say
 * what it has to say. So a visitor who only stops sending is not passed on as an end (`linger_ms`).
 */
export const VSOCK_NAME = 'v.sock';

export const socketOfPort = (port: number) => `${VSOCK_NAME}_${checkPort(port)}`;

/** The answer to CONNECT is `OK ` and a port of at most ten digits. */
const GREETING_BYTES = 32;
const CONNECT_MS = 5000;
const LINGER_MS = 10_000;
/** Firecracker itself keeps at most 1023 connections of a VM. */
const MAX_CONNECTIONS = 512;

function checkPort(port: number): number {
  if (!Number.isInteger(port) || port < 1 || port >= 2 ** 32 - 1)
    throw new Error(`${port} is no vsock port (1 to ${2 ** 32 - 2})`);
  return port;
}

/** A stream to a program in the guest that listens on `port`; rejects when nobody does. */
export async function connectToGuest(
  socket_path: string,
  port: number,
  timeout_ms = CONNECT_MS,
): Promise<Socket> {
  checkPort(port);
  const socket = connect({ path: socket_path, allowHalfOpen: true });
  const timer = setTimeout(() => {
    socket.destroy(new Error(`the guest did not take a connection to port ${port} within ${timeout_ms} ms`));
  }, timeout_ms);
  try {
    await once(socket, 'connect');
    // In one piece: Firecracker does not wait for the rest.
    socket.write(`CONNECT ${port}\n`);
    await readGreeting(socket, port);
    return socket;
  } catch (error) {
    socket.destroy();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/** Reads exactly the line; what comes after it belongs to the stream. */
async function readGreeting(socket: Socket, port: number): Promise<void> {
  let text = Buffer.alloc(0);
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const onReadable = () => {
    for (let chunk = socket.read(); chunk !== null; chunk = socket.read()) {
      text = Buffer.concat([text, chunk]);
      const end = text.indexOf('\n');
      if (end < 0 && text.length < GREETING_BYTES) continue;
      const line = text.subarray(0, Math.max(end, 0)).toString('latin1');
      if (!/^OK \d{1,10}$/.test(line)) {
        const seen = JSON.stringify(text.subarray(0, GREETING_BYTES).toString('latin1'));
        return reject(new Error(`the answer to CONNECT ${port} was ${seen}`));
      }
      socket.off('readable', onReadable);
      if (end + 1 < text.length) socket.unshift(text.subarray(end + 1));
      return resolve();
    }
  };
  const onEnd = () => reject(new Error(`nobody in the guest listens on port ${port}`));
  const onError = (error: Error) => reject(error);
  socket.on('readable', onReadable).on('end', onEnd).on('close', onEnd).on('error', onError);
  try {
    await promise;
  } finally {
    for (const [event, listener] of [
      ['readable', onReadable],
      ['end', onEnd],
      ['close', onEnd],
    ] as const)
      socket.off(event, listener);
    // Whoever takes the stream brings a handler of errors; until then one must not end the engine.
    socket.on('error', () => undefined).off('error', onError);
  }
}

export interface Listener {
  close(): Promise<void>;
}

export interface GuestListenerOptions {
  /** `socketOfPort(port)` in the VM's folder. */
  socket_path: string;
  max_connections?: number;
  on_connection: (socket: Socket) => void;
}

/** Where the guest's calls to one port of the host arrive. */
export async function listenForGuest(o: GuestListenerOptions): Promise<Listener> {
  await rm(o.socket_path, { force: true });
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => undefined);
    o.on_connection(socket);
  });
  server.maxConnections = o.max_connections ?? MAX_CONNECTIONS;
  // Firecracker has another user; that the folder is closed to all others is its owner's care.
  server.listen({ path: o.socket_path, readableAll: true, writableAll: true });
  return await listening(server);
}

/** Brings the guest's calls to a Unix socket of the host: its way to the egress proxy. */
export function bridgeGuestTo(o: {
  socket_path: string;
  target_path: string;
  max_connections?: number;
}): Promise<Listener> {
  return listenForGuest({
    socket_path: o.socket_path,
    max_connections: o.max_connections ?? MAX_CONNECTIONS,
    on_connection: (guest) => {
      const target = connect({ path: o.target_path, allowHalfOpen: true });
      target.on('error', () => guest.destroy());
      // A proxy that has said everything is done with the guest.
      joinStreams(target, guest, 0);
    },
  });
}

/** 127.0.0.1:`host_port` leads to a port of the guest. A visitor whom the guest does not take is reset. */
export async function forwardPort(o: {
  host_port: number;
  /** `v.sock` of the VM. */
  socket_path: string;
  guest_port: number;
  max_connections?: number;
  linger_ms?: number;
}): Promise<Listener> {
  const server = createServer({ allowHalfOpen: true, noDelay: true, pauseOnConnect: true }, (visitor) => {
    visitor.on('error', () => undefined);
    connectToGuest(o.socket_path, o.guest_port).then(
      (guest) => {
        guest.on('error', () => visitor.resetAndDestroy());
        joinStreams(visitor, guest, o.linger_ms ?? LINGER_MS);
      },
      () => visitor.resetAndDestroy(),
    );
  });
  server.maxConnections = o.max_connections ?? MAX_CONNECTIONS;
  server.listen({ host: '127.0.0.1', port: o.host_port });
  return await listening(server);
}

/** Carries bytes both ways, with back pressure, until one side is gone. */
function joinStreams(outside: Socket, guest: Socket, linger_ms: number): void {
  const cut_ms = Math.max(linger_ms, 1000);
  if (outside.destroyed) return void guest.destroy();
  let timer: NodeJS.Timeout | undefined;
  outside.pipe(guest, { end: false });
  guest.pipe(outside, { end: false });
  outside.on('end', () => {
    // The guest cannot be told of half an end; while it still sends, the whole end waits.
    const linger = () => {
      clearTimeout(timer);
      timer = setTimeout(() => guest.end(), linger_ms);
    };
    guest.on('data', linger);
    linger();
  });
  guest.on('end', () => {
    outside.end();
    guest.end();
  });
  outside.on('close', () => {
    clearTimeout(timer);
    // `end` lets what was written reach the guest; a guest that takes nothing is cut off.
    guest.end();
    timer = setTimeout(() => guest.destroy(), cut_ms).unref();
  });
  guest.on('close', () => {
    clearTimeout(timer);
    outside.end();
    setTimeout(() => outside.destroy(), cut_ms).unref();
  });
}

async function listening(server: Server): Promise<Listener> {
  const open = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    open.add(socket);
    socket.on('close', () => open.delete(socket));
  });
  await once(server, 'listening');
  server.on('error', () => undefined);
  return {
    close: () =>
      new Promise((done) => {
        server.close(() => done());
        for (const socket of open) socket.destroy();
      }),
  };
}
