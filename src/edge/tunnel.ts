/** WebSockets: the upgrade request is proxied like any other; after `101` the two connections are joined raw. */
import http, { type IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { cut } from './connection.ts';
import { requestHeaders, responseHeaders } from './headers.ts';
import { type EdgeError, sendError } from './pages.ts';
import type { ProxyContext } from './proxy.ts';
import { SilenceClock } from './silence.ts';
import type { Target } from './target.ts';
import { type Lease, type Upstream, whenConnected } from './upstreams.ts';

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
  new Tunnel(of, lease, context).begin();
}

/**
 *   connecting   the upgrade is on its way to an instance: what fails goes to another one, or is answered by a page
 *   answered     the instance did not want to upgrade, and its answer goes to the client: what fails now can only cut it
 *   joined       both connections are one
 *   over         the client has a page of the edge, or has gone
 */
type State = 'connecting' | 'answered' | 'joined' | 'over';

/** Node's parser lets more through in a reason phrase. */
const PRINTABLE = /^[\t\x20-\x7e\x80-\xff]*$/;

class Tunnel {
  readonly #of: UpgradeRequest;
  readonly #context: ProxyContext;
  readonly #tried = new Set<string>();
  readonly #take_early: () => Buffer;
  #state: State = 'connecting';
  #lease: Lease;
  #outgoing: http.ClientRequest | null = null;
  #clock: SilenceClock | null = null;

  constructor(of: UpgradeRequest, lease: Lease, context: ProxyContext) {
    this.#of = of;
    this.#lease = lease;
    this.#context = context;
    this.#take_early = listenUntilUpgrade(of);
  }

  begin(): void {
    this.#of.socket.once('close', () => this.#end());
    this.#send();
  }

  #send(): void {
    const { limits } = this.#context;
    const { upstream } = this.#lease;
    this.#tried.add(upstream.id);
    let outgoing: http.ClientRequest;
    try {
      outgoing = send(this.#of, upstream, this.#context);
    } catch {
      this.#refuse('BAD_REQUEST'); // node:http refuses characters here that its own parser let in
      return;
    }
    this.#outgoing = outgoing;
    let connected = false;
    whenConnected(outgoing, limits.connect_timeout_ms, () => {
      connected = true;
      if (this.#state === 'connecting') this.#startClock(limits.first_byte_timeout_ms, () => true);
    });
    outgoing.on('error', (error) => {
      if (this.#state === 'connecting' && outgoing === this.#outgoing) this.#onFailure(error, connected);
    });
    outgoing.once('response', (answer) => this.#onAnswer(answer));
    outgoing.once('upgrade', (answer, far, head) => this.#onUpgrade(answer, far as Socket, head));
    outgoing.end();
  }

  #onFailure(error: Error, connected: boolean): void {
    const { upstreams, pickAgain, log } = this.#context;
    const { upstream } = this.#lease;
    this.#clock?.stop();
    if (!connected) upstreams.refused(upstream);
    const other = connected ? null : pickAgain(this.#of.target, this.#tried);
    if (other !== null) {
      this.#lease.release();
      this.#lease = other;
      this.#send();
      return;
    }
    log('warn', 'an instance failed before it upgraded', { instance_id: upstream.id, error: error.message });
    this.#refuse('BAD_GATEWAY');
  }

  #onAnswer(answer: IncomingMessage): void {
    answer.on('error', () => {}); // followed by 'close', which looks at `complete`
    if (this.#state !== 'connecting' || this.#of.socket.destroyed) return void answer.destroy();
    // Without a protocol that it switches to, node takes a `101` for an ordinary answer.
    if (answer.statusCode! < 200 || !PRINTABLE.test(answer.statusMessage!)) {
      this.#onFailure(new Error('its answer cannot be passed on'), true);
      return;
    }
    this.#state = 'answered';
    this.#clock?.stop();
    this.#passOn(answer);
  }

  /**
   * The instance did not want to upgrade (a login page, a 404): its answer goes to the client as it is, up to the end
   * of the connection. Written raw, because a response of node's never hears of 'drain' on a socket it has let go of.
   */
  #passOn(answer: IncomingMessage): void {
    const socket = this.#of.socket as Socket;
    const headers = [...responseHeaders(answer, false), 'Connection', 'close'];
    socket.write(headOf(`${answer.statusCode} ${answer.statusMessage}`, headers), 'latin1');
    this.#startClock(
      this.#context.limits.silence_timeout_ms,
      () => !socket.destroyed && !socket.writableNeedDrain,
    );
    answer.on('data', () => this.#clock?.restart());
    socket.on('drain', () => this.#clock?.restart());
    answer.once('close', () => {
      this.#clock?.stop();
      if (answer.complete) socket.destroySoon();
      else cut(socket);
    });
    answer.pipe(socket, { end: false });
  }

  #onUpgrade(answer: IncomingMessage, far: Socket, far_head: Buffer): void {
    const socket = this.#of.socket as Socket;
    if (this.#state !== 'connecting' || socket.destroyed) return void far.on('error', () => {}).destroy();
    this.#state = 'joined';
    this.#clock?.stop();
    watch(this.#lease.upstream, [socket, far]);
    const protocol = answer.headers.upgrade === undefined ? [] : ['Upgrade', answer.headers.upgrade];
    const headers = ['Connection', 'Upgrade', ...protocol, ...responseHeaders(answer, false)];
    socket.write(headOf('101 Switching Protocols', headers), 'latin1');
    socket.write(far_head);
    far.write(this.#take_early());
    joinSockets(socket, far, this.#context.limits.websocket_idle_ms);
  }

  #startClock(ms: number, waits_for_instance: () => boolean): void {
    this.#clock = new SilenceClock({ ms, waits_for_instance, on_silence: () => this.#onSilence() });
  }

  #onSilence(): void {
    const data = { instance_id: this.#lease.upstream.id };
    this.#context.log('warn', 'an instance did not answer in time', data);
    if (this.#state === 'connecting') this.#refuse('GATEWAY_TIMEOUT');
    else cut(this.#of.socket as Socket);
  }

  #refuse(error: EdgeError): void {
    this.#end();
    refuse(this.#of, error);
  }

  #end(): void {
    this.#state = 'over';
    this.#clock?.stop();
    this.#outgoing?.destroy();
    this.#lease.release();
  }
}

/** Answers an upgrade request with a page and ends its connection, which node has let go of. Never throws. */
export function refuse(
  { request, socket }: Pick<UpgradeRequest, 'request' | 'socket'>,
  error: EdgeError,
): void {
  if (socket.destroyed) return;
  const response = new ServerResponse(request);
  response.on('error', () => {});
  try {
    response.assignSocket(socket as Socket);
  } catch {
    socket.destroy(); // another answer still has it
    return;
  }
  response.once('finish', () => (socket as Socket).destroySoon());
  sendError(request, response, error, { connection: 'close' });
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

function headOf(status: string, headers: string[]): string {
  const lines = [`HTTP/1.1 ${status}`];
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
