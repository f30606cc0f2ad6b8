/** WebSockets: the upgrade request is proxied like any other; after `101` the two connections are joined raw. */
import http, { type IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { cut } from './connection.ts';
import { requestHeaders, responseHeaders } from './headers.ts';
import { type EdgeError, sendError } from './pages.ts';
import type { ProxyContext } from './proxy.ts';
import type { Target } from './target.ts';
import type { Lease, Upstream } from './upstreams.ts';

/** Only WebSockets are tunnelled; a wish for another protocol (h2c, …) is ignored, as HTTP allows. */
export function isWebSocket(request: IncomingMessage): boolean {
  return request.method === 'GET' && request.headers.upgrade?.toLowerCase() === 'websocket';
}

export interface UpgradeRequest {
  request: IncomingMessage;
  socket: Duplex;
  /** What the client sent after its request already. */
  head: Buffer;
  target: Target;
}

/** Sends the upgrade to the leased instance; the lease is given back when the client's connection is closed. */
export function tunnel(of: UpgradeRequest, lease: Lease, context: ProxyContext): void {
  const { socket, target } = of;
  const tried = new Set<string>();
  let held = lease;
  let outgoing: http.ClientRequest | null = null;
  const takeEarly = listenUntilUpgrade(of);
  socket.once('close', () => {
    outgoing?.destroy();
    held.release();
  });

  function attempt(): void {
    const { upstream } = held;
    tried.add(upstream.id);
    let sent: http.ClientRequest;
    try {
      sent = send(of, upstream, context);
    } catch {
      refuse(of, 'BAD_REQUEST'); // node:http refuses characters here that its own parser let in
      return;
    }
    outgoing = sent;
    let connected = false;
    sent.once('socket', (far) =>
      far.once('connect', () => {
        connected = true;
      }),
    );
    sent.on('timeout', () => fail(sent, 'GATEWAY_TIMEOUT'));
    sent.on('error', (error) => {
      if (socket.destroyed || sent !== outgoing) return;
      if (!connected) context.upstreams.refused(upstream);
      const other = connected ? null : context.pickAgain(target, tried);
      if (other !== null) {
        held.release();
        held = other;
        return attempt();
      }
      const data = { instance_id: upstream.id, error: error.message };
      context.log('warn', 'an instance failed before it upgraded', data);
      fail(sent, 'BAD_GATEWAY');
    });
    sent.once('response', (answer) => passOn(of, answer));
    sent.once('upgrade', (answer, far, far_head) => {
      if (socket.destroyed) return void far.destroy();
      watch(upstream, [socket, far]);
      socket.write(headOf(answer), 'latin1');
      socket.write(far_head);
      far.write(takeEarly());
      joinSockets(socket as Socket, far as Socket, context.limits.websocket_idle_ms);
    });
    sent.end();
  }

  function fail(sent: http.ClientRequest, error: EdgeError): void {
    outgoing = null;
    sent.destroy();
    refuse(of, error);
  }

  attempt();
}

/** Answers an upgrade request with a page and ends its connection. */
export function refuse(of: { request: IncomingMessage; socket: Duplex }, error: EdgeError): void {
  const response = respond(of.request, of.socket);
  if (response !== null) sendError(of.request, response, error, { connection: 'close' });
}

function send(of: UpgradeRequest, upstream: Upstream, context: ProxyContext): http.ClientRequest {
  const { limits, trust_forwarded } = context;
  return http.request({
    agent: false,
    host: upstream.host,
    port: upstream.port,
    method: of.request.method!,
    path: of.target.path,
    headers: requestHeaders(of.request, { target: of.target, trust_forwarded, upgrade: true }),
    setHost: false,
    timeout: limits.first_byte_timeout_ms,
    maxHeaderSize: limits.header_bytes * 2,
  });
}

const MAX_EARLY_BYTES = 64 * 1024;

/**
 * Until the instance has answered, what the client sends is kept (a little of it), for only a socket that is read
 * tells that its client has gone. Returns the way to stop that and take what came.
 */
function listenUntilUpgrade({ socket, head }: UpgradeRequest): () => Buffer {
  const early = [head];
  let bytes = head.length;
  const keep = (chunk: Buffer): void => {
    early.push(chunk);
    bytes += chunk.length;
    if (bytes > MAX_EARLY_BYTES) socket.pause();
  };
  const leave = (): void => void socket.destroy();
  socket.on('data', keep);
  socket.once('end', leave);
  return () => {
    socket.pause();
    socket.off('data', keep);
    socket.off('end', leave);
    return Buffer.concat(early);
  };
}

/** Both ends can be cut when the instance is drained. */
function watch(upstream: Upstream, ends: Duplex[]): void {
  for (const end of ends) {
    upstream.tunnels.add(end);
    end.once('close', () => upstream.tunnels.delete(end));
  }
}

/** The instance did not want to upgrade (a login page, a 404): its answer goes to the client as it is. */
function passOn(of: UpgradeRequest, answer: IncomingMessage): void {
  const response = respond(of.request, of.socket);
  if (response === null) return void answer.destroy();
  answer.on('error', () => {});
  answer.once('close', () => {
    if (!answer.complete) cut(of.socket as Socket);
  });
  const headers = [...responseHeaders(answer, false), 'Connection', 'close'];
  try {
    response.writeHead(answer.statusCode!, answer.statusMessage, headers);
    answer.pipe(response);
  } catch {
    cut(of.socket as Socket); // an answer that node does not let through
  }
}

/** A socket that node has let go of for an upgrade gets an ordinary response after all. */
function respond(request: IncomingMessage, socket: Duplex): ServerResponse | null {
  if (socket.destroyed) return null;
  const response = new ServerResponse(request);
  response.on('error', () => {});
  response.assignSocket(socket as Socket);
  response.once('finish', () => (socket as Socket).destroySoon());
  return response;
}

function headOf(answer: IncomingMessage): string {
  const lines = ['HTTP/1.1 101 Switching Protocols', 'Connection: Upgrade'];
  if (answer.headers.upgrade) lines.push(`Upgrade: ${answer.headers.upgrade}`);
  const headers = responseHeaders(answer, false);
  for (let i = 0; i < headers.length; i += 2) lines.push(`${headers[i]}: ${headers[i + 1]}`);
  return `${lines.join('\r\n')}\r\n\r\n`;
}

const TCP_KEEPALIVE_MS = 60_000;

function joinSockets(near: Socket, far: Socket, idle_ms: number): void {
  for (const [from, to] of [
    [near, far],
    [far, near],
  ] as const) {
    from.setNoDelay(true);
    from.setKeepAlive(true, TCP_KEEPALIVE_MS);
    from.setTimeout(idle_ms, () => from.destroy());
    from.on('error', () => {});
    // What one end has said in full still reaches the other.
    from.once('close', () => to.destroySoon());
    from.pipe(to);
  }
}
