import { lookup } from 'node:dns/promises';
import { once } from 'node:events';
import { request } from 'node:http';
import { connect, isIP, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { canonical } from './address.ts';
import type { HostNetwork, Upstream } from './host-network.ts';
import { authority, type Rules, type Target } from './rules.ts';

export type Dialed =
  | { ok: true; socket: Socket; via: Upstream | null }
  | { ok: false; refused: string; allow: string | null }
  | { ok: false; refused: null; unreachable: string };

export interface DialOptions {
  rules: Rules;
  host: HostNetwork;
  resolve: (name: string) => Promise<string[]>;
  connect_ms: number;
}

/** A family that does not work here costs this much before the other is tried. */
const NEXT_ADDRESS_MS = 500;

export async function resolveName(name: string): Promise<string[]> {
  return (await lookup(name, { all: true, order: 'verbatim' })).map((one) => one.address);
}

/**
 * Connects to a target if the rules let it. The name is resolved once, here; what was checked is what is connected
 * to, so a name that answers differently the next time gains nothing.
 */
export async function dial(target: Target, scheme: 'http' | 'https', o: DialOptions): Promise<Dialed> {
  const before = o.rules.host(target);
  if (!before.ok) return { ok: false, refused: before.why, allow: before.allow };
  const deadline = AbortSignal.timeout(o.connect_ms);
  const via = o.host.upstream(target, scheme);
  try {
    const resolved = isIP(target.host) ? [target.host] : await orAbort(o.resolve(target.host), deadline);
    const { use, verdict } = o.rules.addresses(target, resolved);
    if (!verdict.ok) return { ok: false, refused: verdict.why, allow: verdict.allow };
    if (via === null) return { ok: true, socket: await open(target.port, use, deadline), via };
  } catch (error) {
    // A proxy may know names that this host's resolver does not.
    if (via === null || deadline.aborted) return unreachable(error, deadline, o);
  }
  try {
    const socket = await openUpstream(via!, deadline);
    if (scheme === 'http') return { ok: true, socket, via };
    return { ok: true, socket: await tunnelThrough(socket, via!, target, deadline), via };
  } catch (error) {
    return unreachable(error, deadline, o);
  }
}

function unreachable(error: unknown, deadline: AbortSignal, o: DialOptions): Dialed {
  const why = error instanceof Error ? error.message : String(error);
  const text = deadline.aborted ? `no answer within ${o.connect_ms / 1000} s` : why;
  return { ok: false, refused: null, unreachable: text || 'no connection' };
}

async function open(port: number, addresses: readonly string[], deadline: AbortSignal): Promise<Socket> {
  const list = addresses.map((address) => ({ address, family: isIP(address) }));
  const socket = connect({
    ...{ port, host: addresses.length === 1 ? addresses[0]! : 'checked-addresses' },
    lookup: (_name, options, done) =>
      options.all ? done(null, list) : done(null, list[0]!.address, list[0]!.family),
    ...{ autoSelectFamily: addresses.length > 1, autoSelectFamilyAttemptTimeout: NEXT_ADDRESS_MS },
    ...{ noDelay: true, keepAlive: true },
  });
  await connected(socket, 'connect', deadline);
  const reached = canonical(socket.remoteAddress ?? '');
  if (reached !== null && addresses.some((address) => canonical(address) === reached)) return socket;
  socket.destroy();
  throw new Error('the connection went to an address that was not checked');
}

async function openUpstream(via: Upstream, deadline: AbortSignal): Promise<Socket> {
  const at = { host: via.host, port: via.port };
  const socket = via.tls
    ? connectTls({ ...at, servername: isIP(via.host) ? '' : via.host })
    : connect({ ...at, noDelay: true });
  return await connected(socket, via.tls ? 'secureConnect' : 'connect', deadline);
}

async function tunnelThrough(socket: Socket, via: Upstream, target: Target, deadline: AbortSignal) {
  const asked = request({
    ...{ method: 'CONNECT', path: authority(target), createConnection: () => socket },
    headers: {
      host: authority(target),
      ...(via.authorization === null ? {} : { 'proxy-authorization': via.authorization }),
    },
  });
  asked.end();
  const end = () => asked.destroy(new Error('too slow'));
  deadline.addEventListener('abort', end, { once: true });
  try {
    const answer = await Promise.race([
      once(asked, 'connect'),
      once(asked, 'response').then(([response]) => [response, socket, Buffer.alloc(0)]),
    ]);
    const [response, tunnel, head] = answer as [{ statusCode: number }, Socket, Buffer];
    if (response.statusCode !== 200)
      throw new Error(`the proxy ${via.host}:${via.port} answered ${response.statusCode}`);
    if (head.length > 0) tunnel.unshift(head);
    return tunnel;
  } catch (error) {
    socket.destroy();
    throw error;
  } finally {
    deadline.removeEventListener('abort', end);
  }
}

async function connected(socket: Socket, event: string, deadline: AbortSignal): Promise<Socket> {
  try {
    await once(socket, event, { signal: deadline });
    // An error between here and whoever takes the socket over must not be nobody's.
    socket.on('error', () => undefined);
    return socket;
  } catch (error) {
    socket.on('error', () => undefined).destroy();
    throw error;
  }
}

function orAbort<T>(work: Promise<T>, deadline: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    deadline.addEventListener('abort', () => reject(new Error('too slow')), { once: true });
    work.then(resolve, reject);
  });
}
