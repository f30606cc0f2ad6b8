import { once } from 'node:events';
import { chmod, rm } from 'node:fs/promises';
import {
  type ClientRequest,
  createServer,
  type IncomingMessage,
  request,
  type Server,
  type ServerResponse,
} from 'node:http';
import type { Socket } from 'node:net';
import { pipeline } from 'node:stream/promises';
import { openContacts } from './contacts.ts';
import { type Dialed, type DialOptions, dial, resolveName } from './dial.ts';
import { endToEnd, framing } from './headers.ts';
import { DIRECT, type Upstream } from './host-network.ts';
import { EGRESS_LIMITS, type Egress, type EgressLimits, type EgressOptions } from './policy.ts';
import { authority, hostOf, makeRules, parseTarget, type Target } from './rules.ts';

/** A connection of the machine: requests on it are read ahead of the answers to those before them. */
interface Client {
  /** When it closes, whatever goes on for it ends: of a request whose turn never came nothing else tells. */
  gone: AbortController;
  unanswered: number;
}

/** A machine that tries one name after the other must not fill the log. */
const MOST_LINES = 50;
const LINGER_MS = 2000;
const TOTAL_CHECK_MS = 250;

/**
 * The way out of one machine: a forward proxy for HTTP (`GET http://host/…`) and, by CONNECT, for everything in
 * TLS. It resolves names itself and connects to nothing that the policy's rules do not let through. Node's parser
 * reads what the machine sends and refuses what could be read in two ways (a length and chunks, bare line feeds);
 * what goes on is written anew from what was parsed.
 */
export async function openEgress(o: EgressOptions): Promise<Egress> {
  const proxy = new EgressProxy(o);
  const { server, contacts, limits } = proxy;
  if (o.socket_path !== null) {
    server.listen(o.socket_path);
    await once(server, 'listening');
    await chmod(o.socket_path, 0o600);
  }
  return {
    socket_path: o.socket_path,
    serve(socket) {
      if (!proxy.closed && proxy.incoming.size < limits.connections) server.emit('connection', socket);
      else socket.destroy();
    },
    relay(socket, target) {
      if (proxy.closed || proxy.incoming.size >= limits.connections) return void socket.destroy();
      proxy.relay(socket, target).catch(() => socket.destroy());
    },
    contacts: contacts.list,
    close: () => proxy.close(),
  };
}

class EgressProxy {
  readonly o: EgressOptions;
  readonly limits: EgressLimits;
  readonly dial_options: DialOptions;
  readonly contacts = openContacts();
  readonly server: Server;
  readonly incoming = new Set<Socket>();
  readonly outgoing = new Set<Socket>();
  readonly clients = new WeakMap<Socket, Client>();
  /** Connections to servers that are being made. */
  dialing = 0;
  readonly said = new Set<string>();
  closed = false;

  constructor(o: EgressOptions) {
    this.o = o;
    this.limits = { ...EGRESS_LIMITS, ...o.limits };
    const { connections, header_bytes, header_ms, connect_ms, idle_ms } = this.limits;
    const host = o.host ?? DIRECT;
    const rules = makeRules(o.policy, host.registries);
    this.dial_options = { rules, host, resolve: o.resolve ?? resolveName, connect_ms };
    this.server = createServer({
      ...{ maxHeaderSize: header_bytes, headersTimeout: header_ms, requestTimeout: 0 },
      ...{ connectionsCheckingInterval: Math.min(5000, header_ms), keepAliveTimeout: 15_000 },
      ...{ requireHostHeader: false, insecureHTTPParser: false },
    });
    this.server.maxConnections = connections;
    this.server.setTimeout(idle_ms);
    this.server.on('drop', () =>
      this.say(`network: more than ${connections} connections at once; some are cut`),
    );
    this.server.on('connection', (socket: Socket) => {
      const client: Client = { gone: new AbortController(), unanswered: 0 };
      this.clients.set(socket, client);
      this.watch(socket, this.incoming);
      socket.once('close', () => client.gone.abort());
    });
    this.server.on('connect', (asked, client, head) => {
      this.tunnel(asked, client as Socket, head).catch(() => client.destroy());
    });
    this.server.on('request', (asked, answered) => {
      this.forward(asked, answered).catch(() => answered.destroy());
    });
    this.server.on('clientError', (_, client) => {
      answer(client as Socket, 400, 'This is not HTTP as the proxy reads it.');
      // The parser still holds the socket and would not notice that the other side has left.
      (client as Socket).destroySoon();
    });
  }

  say(line: string): void {
    if (this.said.has(line) || this.said.size > MOST_LINES) return;
    this.said.add(line);
    this.o.on_refused(this.said.size > MOST_LINES ? 'network: further refusals are not shown' : line);
  }

  async dial(target: Target, scheme: 'http' | 'https'): Promise<Dialed> {
    const { total_bytes, connections } = this.limits;
    if (total_bytes !== null && this.contacts.bytes() > total_bytes)
      return { ok: false, refused: `more than ${total_bytes} bytes went over the network`, allow: null };
    // One connection of the machine can ask for any number of others before the first is answered.
    if (this.outgoing.size + this.dialing >= connections)
      return { ok: false, refused: null, unreachable: `more than ${connections} connections at once` };
    this.dialing++;
    try {
      return await dial(target, scheme, this.dial_options);
    } finally {
      this.dialing--;
    }
  }

  /** The connection, or the text of the answer that says why there is none. */
  async reach(target: Target, scheme: 'http' | 'https'): Promise<Dialed & { text: string }> {
    const dialed = await this.dial(target, scheme);
    if (dialed.ok) {
      this.contacts.through(target, dialed.socket);
      this.watch(dialed.socket, this.outgoing);
      if (this.closed) dialed.socket.destroy();
      return { ...dialed, text: '' };
    }
    const text = refusal(target, dialed);
    if (dialed.refused !== null) this.contacts.refused(target, dialed.refused);
    this.say(`network: ${text}`);
    return { ...dialed, text };
  }

  /** Where nothing moves for too long it is over. Errors end the connection, and nothing else. */
  watch(socket: Socket, among: Set<Socket>): void {
    among.add(socket);
    socket.once('close', () => among.delete(socket));
    socket.on('error', () => socket.destroy());
    socket.setTimeout(this.limits.idle_ms, () => socket.destroy());
    const { total_bytes } = this.limits;
    if (total_bytes === null || among === this.incoming) return;
    const check = setInterval(() => {
      if (this.contacts.bytes() > total_bytes) socket.destroy();
    }, TOTAL_CHECK_MS);
    socket.once('close', () => clearInterval(check));
  }

  async tunnel(asked: IncomingMessage, client: Socket, head: Buffer): Promise<void> {
    // An earlier answer still owns the socket: two writers would mix what they say.
    if ((this.clients.get(client)?.unanswered ?? 0) > 0) return void client.destroy();
    const target = parseTarget(asked.url ?? '');
    if (target === null) return answer(client, 400, 'CONNECT names a host and a port.');
    const dialed = await this.reach(target, 'https');
    if (!dialed.ok) return answer(client, dialed.refused === null ? 502 : 403, dialed.text);
    if (client.destroyed) return void dialed.socket.destroy();
    client.write('HTTP/1.1 200 Connection established\r\n\r\n');
    if (head.length > 0) dialed.socket.write(head);
    join(client, dialed.socket, Math.min(this.limits.half_open_ms, this.limits.idle_ms));
  }

  async relay(client: Socket, target: Target): Promise<void> {
    this.watch(client, this.incoming);
    const dialed = await this.reach(target, 'https');
    if (!dialed.ok) return void client.destroy();
    if (client.destroyed) return void dialed.socket.destroy();
    join(client, dialed.socket, Math.min(this.limits.half_open_ms, this.limits.idle_ms));
  }

  async forward(asked: IncomingMessage, answered: ServerResponse): Promise<void> {
    const client = this.clients.get(asked.socket)!;
    client.unanswered++;
    answered.once('close', () => client.unanswered--);
    const url = /^http:\/\//i.test(asked.url ?? '') && URL.canParse(asked.url!) ? new URL(asked.url!) : null;
    const host = url === null ? null : hostOf(url.hostname);
    if (url === null || host === null)
      return refuse(
        answered,
        400,
        'This is a forward proxy: ask for http://host/path, or CONNECT host:port.',
      );
    const target = { host, port: Number(url.port || 80) };
    const dialed = await this.reach(target, 'http');
    if (!dialed.ok) return refuse(answered, dialed.refused === null ? 502 : 403, dialed.text);
    if (asked.socket.destroyed) return void dialed.socket.destroy();
    // Whichever side breaks first takes the other along; the machine sees an answer that ends early.
    answered.once('close', () => dialed.socket.destroy());
    const onward = request({
      ...{ createConnection: () => dialed.socket, method: asked.method, setHost: false },
      path: `${dialed.via === null ? '' : `http://${url.host}`}${url.pathname}${url.search}`,
      headers: onwardHeaders(asked, url.host, dialed.via),
      signal: client.gone.signal,
    });
    passAnswer(onward, answered, authority(target));
    await pipeline(asked, onward).catch(() => dialed.socket.destroy());
  }

  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    for (const socket of [...this.incoming, ...this.outgoing]) socket.destroy();
    this.server.close();
    if (this.o.socket_path !== null) await rm(this.o.socket_path, { force: true });
  }
}

function onwardHeaders(asked: IncomingMessage, host: string, via: Upstream | null): string[] {
  return [
    ...['host', host, 'connection', 'close'],
    ...endToEnd(asked.rawHeaders, ['host', 'content-length']),
    ...framing(asked.headers),
    ...(via === null || via.authorization === null ? [] : ['proxy-authorization', via.authorization]),
  ];
}

/**
 * The server's answer, or 502 where it gives none that can be passed on. What it says is hostile: Node's parser lets
 * answers through that Node's own writer throws at, and nothing would catch that in a handler of events.
 */
function passAnswer(onward: ClientRequest, answered: ServerResponse, server: string): void {
  let failed = false;
  const fail = (why: string) => {
    if (failed) return;
    failed = true;
    onward.destroy();
    if (answered.headersSent) answered.destroy();
    else refuse(answered, 502, `${server} gave no answer to pass on: ${why}`);
  };
  onward.on('error', (error) => fail(error.message));
  onward.once('upgrade', (_, socket) => {
    socket.destroy();
    fail('it changed the protocol');
  });
  onward.once('response', (response) => {
    const status = response.statusCode ?? 0;
    if (status < 200) return fail(`its status is ${status}`);
    try {
      answered.writeHead(status, endToEnd(response.rawHeaders, []));
    } catch (error) {
      return fail((error as Error).message);
    }
    pipeline(response, answered).catch(() => answered.destroy());
  });
  onward.once('close', () => {
    if (!answered.headersSent) fail('the connection ended');
  });
}

function refuse(answered: ServerResponse, status: number, text: string): void {
  answered.writeHead(status, { 'content-type': 'text/plain', connection: 'close' }).end(`${text}\n`);
}

/** Each direction ends on its own: a client that has sent everything may still be answered, for a while. */
function join(client: Socket, socket: Socket, half_open_ms: number): void {
  for (const [from, to] of [
    [client, socket],
    [socket, client],
  ] as const) {
    from.pipe(to);
    from.once('end', () => to.setTimeout(half_open_ms));
    from.once('close', () => to.destroySoon());
  }
}

function answer(client: Socket, status: 400 | 403 | 502, text: string): void {
  if (!client.writable) return void client.destroy();
  const names = { 400: 'Bad Request', 403: 'Forbidden', 502: 'Bad Gateway' };
  const body = `${text}\n`;
  client.end(
    `HTTP/1.1 ${status} ${names[status]}\r\ncontent-type: text/plain\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`,
  );
  // Closing at once, with something unread, would take the answer back.
  client.resume().setTimeout(LINGER_MS);
}

function refusal(target: Target, dialed: Extract<Dialed, { ok: false }>): string {
  if (dialed.refused === null)
    return `${authority(target)} could not be reached: ${dialed.unreachable}. Check the name, or try again`;
  const how =
    dialed.allow === null ? '' : `. Whoever runs Kiln can allow it with --network-allow ${dialed.allow}`;
  return `${authority(target)} is refused: ${dialed.refused}${how}`;
}
