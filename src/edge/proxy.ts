/**
 * One proxied request. Bodies stream both ways with backpressure; nothing is kept in memory.
 *
 * What may be sent again, and when (RFC 9110, 9.2.2):
 *   - the instance could not be connected to: nothing was sent, so any request goes to another instance;
 *   - a reused connection broke before the first byte of an answer: most likely the instance had just closed it
 *     as idle, so an idempotent request without a body goes once more, on a new connection;
 *   - a new connection broke before the first byte of an answer: the instance has most likely died, so such a request
 *     goes once more too, to another instance, if there is one;
 *   - anything else might have had an effect: 502, or 504 after silence.
 *
 * An answer that breaks off in the middle resets the client's connection: it must never look whole.
 */
import http, { type IncomingMessage, type ServerResponse } from 'node:http';
import { cut, discardBody } from './connection.ts';
import { hasBody, requestHeaders, responseHeaders } from './headers.ts';
import type { EdgeLimits } from './limits.ts';
import { type EdgeError, sendError } from './pages.ts';
import type { Log } from './routes.ts';
import { SilenceClock } from './silence.ts';
import type { Target } from './target.ts';
import { type Lease, type Upstream, type Upstreams, whenConnected } from './upstreams.ts';

export interface ProxyContext {
  upstreams: Upstreams;
  limits: EdgeLimits;
  trust_forwarded: boolean;
  /** Another instance of the same host, from the table now in force, already counted; null when there is none. */
  pickAgain: (target: Target, tried: ReadonlySet<string>) => Lease | null;
  log: Log;
}

export interface ProxiedRequest {
  request: IncomingMessage;
  response: ServerResponse;
  target: Target;
  /** The client waits for `100 Continue` before it sends the body. */
  expects_continue: boolean;
}

/** Sends the request to the leased instance and its answer back; gives the lease back when both are over. */
export function proxy(of: ProxiedRequest, lease: Lease, context: ProxyContext): void {
  new Exchange(of, lease, context).begin();
}

const IDEMPOTENT = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE']);

class Exchange {
  readonly #of: ProxiedRequest;
  readonly #context: ProxyContext;
  readonly #tried = new Set<string>();
  readonly #has_body: boolean;
  #lease: Lease;
  #outgoing: http.ClientRequest | null = null;
  #connected = false;
  /** What its connection had brought when this request was sent on it. Bytes. */
  #read_before = 0;
  #body_begun = false;
  #body_sent: boolean;
  #clock: SilenceClock | null = null;
  #sent_again = false;
  /** Over for the client: answered in full, or gone. */
  #over = false;

  constructor(of: ProxiedRequest, lease: Lease, context: ProxyContext) {
    this.#of = of;
    this.#lease = lease;
    this.#context = context;
    this.#has_body = hasBody(of.request);
    this.#body_sent = !this.#has_body;
  }

  begin(): void {
    const { request, response } = this.#of;
    response.once('close', () => {
      this.#over = true;
      this.#clock?.stop();
      if (!response.writableFinished || !request.complete) this.#outgoing?.destroy();
      request.unpipe();
      discardBody(request);
      this.#lease.release();
    });
    request.on('error', () => {}); // a client that goes away; 'close' of the response deals with it
    this.#send(false);
  }

  #send(fresh_connection: boolean): void {
    const { request, target } = this.#of;
    const { limits, trust_forwarded } = this.#context;
    const { upstream } = this.#lease;
    this.#tried.add(upstream.id);
    this.#connected = false;
    this.#clock?.stop();
    let outgoing: http.ClientRequest;
    try {
      outgoing = http.request({
        agent: fresh_connection ? false : upstream.agent,
        host: upstream.host,
        port: upstream.port,
        method: request.method!,
        path: target.path,
        headers: requestHeaders(request, { target, trust_forwarded, upgrade: false }),
        setHost: false,
        maxHeaderSize: limits.header_bytes * 2,
      });
    } catch (error) {
      // node:http refuses characters here that its own parser let in.
      this.#context.log('warn', 'a request could not be sent on', { error: String(error) });
      this.#giveUp('BAD_REQUEST');
      return;
    }
    this.#outgoing = outgoing;
    outgoing.on('error', (error) => this.#onError(outgoing, error));
    outgoing.on('information', (info) => this.#onInformation(info));
    outgoing.once('response', (answer) => this.#onAnswer(outgoing, answer));
    outgoing.once('upgrade', (_answer, socket) => {
      socket.on('error', () => {}).destroy();
      this.#onUnwantedUpgrade(outgoing);
    });
    whenConnected(outgoing, limits.connect_timeout_ms, () => this.#onConnected(outgoing));
    if (!this.#has_body) outgoing.end();
  }

  /** The body starts to flow only on a connection that stands: until then the request can still go elsewhere. */
  #onConnected(outgoing: http.ClientRequest): void {
    this.#connected = true;
    this.#read_before = outgoing.socket?.bytesRead ?? 0;
    if (this.#over || outgoing.destroyed) return;
    this.#startClock(outgoing, this.#context.limits.first_byte_timeout_ms);
    if (this.#has_body) this.#sendBody(outgoing);
  }

  #sendBody(outgoing: http.ClientRequest): void {
    const { request, response, expects_continue } = this.#of;
    this.#body_begun = true;
    let bytes = 0;
    outgoing.on('drain', () => this.#clock?.restart());
    const count = (chunk: Buffer): void => {
      this.#clock?.restart();
      bytes += chunk.length;
      if (bytes <= this.#context.limits.body_bytes) return;
      request.off('data', count);
      this.#giveUp('BODY_TOO_LARGE');
    };
    request.on('data', count);
    request.on('end', () => {
      this.#body_sent = true;
      this.#clock?.restart();
      if (request.rawTrailers.length > 0) outgoing.addTrailers(pairs(request.rawTrailers));
      outgoing.end();
    });
    // A body that has not come yet must not hold back the head; one that has goes out together with it.
    if (request.readableLength === 0) outgoing.flushHeaders();
    if (expects_continue) response.writeContinue();
    request.pipe(outgoing, { end: false });
  }

  #startClock(outgoing: http.ClientRequest, ms: number): void {
    const { request, response } = this.#of;
    this.#clock?.stop();
    this.#clock = new SilenceClock({
      ms,
      waits_for_instance: () =>
        !request.socket.destroyed &&
        !response.writableNeedDrain &&
        (this.#body_sent || outgoing.writableNeedDrain),
      on_silence: () => this.#onSilence(outgoing),
    });
  }

  #onInformation(info: http.InformationEvent): void {
    this.#clock?.restart();
    const { request, response } = this.#of;
    if (info.statusCode !== 103 || response.headersSent || request.httpVersionMinor === 0) return;
    const link = info.headers.link;
    if (link === undefined) return;
    try {
      response.writeEarlyHints({ link });
    } catch {
      // Node is strict about the form of these; a hint that cannot be passed on is only lost.
    }
  }

  /** `101` says that the connection now speaks another protocol, which the client has not asked for. */
  #onUnwantedUpgrade(outgoing: http.ClientRequest): void {
    if (outgoing !== this.#outgoing || this.#over) return;
    const data = { instance_id: this.#lease.upstream.id };
    this.#context.log('warn', 'an instance switched to another protocol unasked', data);
    this.#giveUp('BAD_GATEWAY');
  }

  #onAnswer(outgoing: http.ClientRequest, answer: IncomingMessage): void {
    answer.on('error', () => {}); // followed by 'close', which looks at `complete`
    const { request, response } = this.#of;
    if (this.#over || response.headersSent) {
      outgoing.destroy();
      return;
    }
    // Without a protocol that it switches to, node takes a `101` for an ordinary answer.
    if (answer.statusCode === 101) {
      this.#onUnwantedUpgrade(outgoing);
      return;
    }
    const trailers = answer.headers['transfer-encoding'] !== undefined && request.httpVersionMinor > 0;
    try {
      response.writeHead(answer.statusCode!, answer.statusMessage, responseHeaders(answer, trailers));
    } catch (error) {
      this.#context.log('warn', 'an answer could not be passed on', { error: String(error) });
      this.#giveUp('BAD_GATEWAY');
      return;
    }
    this.#startClock(outgoing, this.#context.limits.silence_timeout_ms);
    response.on('drain', () => this.#clock?.restart());
    const { headers, socket } = answer; // read now: node takes the socket away from some
    const is_open_ended =
      headers['transfer-encoding'] === undefined && headers['content-length'] === undefined;
    answer.once('end', () => {
      this.#clock?.stop();
      // Node takes a reset for the end of an answer that does not say where it ends.
      if (is_open_ended && socket.errored !== null) {
        this.#cut();
        return;
      }
      if (trailers && answer.rawTrailers.length > 0) response.addTrailers(pairs(answer.rawTrailers));
      response.end();
    });
    answer.once('close', () => {
      if (!answer.complete && !this.#over) this.#cut();
    });
    let body_begun = false;
    answer.on('data', () => {
      body_begun = true;
      this.#clock?.restart();
    });
    answer.pipe(response, { end: false });
    // Node holds the head back until the body begins; a stream that begins with silence must not wait for it.
    setImmediate(() => {
      if (!body_begun && !this.#over && !response.writableEnded) response.flushHeaders();
    });
  }

  #onSilence(outgoing: http.ClientRequest): void {
    if (outgoing !== this.#outgoing || this.#over) return;
    this.#context.log('warn', 'an instance did not answer in time', { instance_id: this.#lease.upstream.id });
    this.#giveUp('GATEWAY_TIMEOUT');
  }

  #onError(outgoing: http.ClientRequest, error: Error): void {
    if (outgoing !== this.#outgoing || this.#over) return;
    // After the head of an answer, the answer's own 'close' decides; a late write error must not spoil it.
    if (this.#of.response.headersSent) return;
    const { upstream } = this.#lease;
    const may_again = this.#connected && this.#maySendAgain(outgoing);
    const is_down = !this.#connected || (may_again && !outgoing.reusedSocket);
    const other = is_down ? this.#otherInstance(upstream) : null;
    if (other !== null) {
      this.#lease.release();
      this.#lease = other;
      this.#sent_again ||= may_again;
      this.#send(may_again);
    } else if (may_again && outgoing.reusedSocket) {
      this.#sent_again = true;
      this.#send(true);
    } else {
      const data = { instance_id: upstream.id, error: error.message };
      this.#context.log('warn', 'an instance failed before it answered', data);
      this.#giveUp('BAD_GATEWAY');
    }
  }

  #otherInstance(refusing: Upstream): Lease | null {
    this.#context.upstreams.refused(refusing);
    return this.#context.pickAgain(this.#of.target, this.#tried);
  }

  #maySendAgain(outgoing: http.ClientRequest): boolean {
    const is_answered = outgoing.socket?.bytesRead !== this.#read_before;
    return !is_answered && !this.#sent_again && !this.#body_begun && IDEMPOTENT.has(this.#of.request.method!);
  }

  /** Lets go of the instance: the client gets the edge's own page, or is cut in the middle of an answer. */
  #giveUp(error: EdgeError): void {
    const { request, response, expects_continue } = this.#of;
    const outgoing = this.#outgoing;
    this.#outgoing = null;
    this.#clock?.stop();
    request.unpipe();
    outgoing?.destroy();
    if (response.headersSent) {
      this.#cut();
      return;
    }
    // Without its `100 Continue` a client may send the body or not: only a new connection is clear.
    const unclear = expects_continue && !this.#body_begun;
    sendError(request, response, error, unclear ? { connection: 'close' } : {});
  }

  #cut(): void {
    this.#outgoing?.destroy();
    cut(this.#of.request.socket);
  }
}

function pairs(raw: string[]): [string, string][] {
  const list: [string, string][] = [];
  for (let i = 0; i < raw.length; i += 2) list.push([raw[i]!, raw[i + 1]!]);
  return list;
}
