/**
 * One POST to an address of a stranger's choosing. The name is resolved once, every address it has must be public, and
 * the connection goes to one of those (a name that changes its mind in between gains nothing). No redirects, bounded
 * time and answer.
 */
import { createHmac } from 'node:crypto';
import { promises as dns, type LookupAddress } from 'node:dns';
import http from 'node:http';
import https from 'node:https';
import net from 'node:net';

const TIMEOUT_MS = 10_000;
const EXCERPT_BYTES = 1024;

export interface Sending {
  url: string;
  headers: Record<string, string>;
  secret: string;
  /** Sent and signed as it is. */
  body: string;
  allow_private: boolean;
  signal: AbortSignal;
  now_ms: number;
}

export interface Sent {
  /** Null: there was no answer, and `error` says why. */
  status: number | null;
  excerpt: string | null;
  error: string | null;
  duration_ms: number;
}

const NOT_PUBLIC = new net.BlockList();
for (const [network, prefix] of [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.0.2.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['198.51.100.0', 24],
  ['203.0.113.0', 24],
  ['224.0.0.0', 3],
] as const)
  NOT_PUBLIC.addSubnet(network, prefix, 'ipv4');

/** Of IPv6 only global unicast is public, without the ranges that stand for IPv4 addresses or tunnels. */
const PUBLIC_6 = new net.BlockList();
PUBLIC_6.addSubnet('2000::', 3, 'ipv6');
const TUNNEL_6 = new net.BlockList();
for (const [network, prefix] of [
  ['2001::', 23],
  ['2001:db8::', 32],
  ['2002::', 16],
  ['3fff::', 20],
] as const)
  TUNNEL_6.addSubnet(network, prefix, 'ipv6');

/** Pure. Anything that is not an address is not public. */
export function isPublicAddress(address: string): boolean {
  if (net.isIPv4(address)) return !NOT_PUBLIC.check(address, 'ipv4');
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1];
  if (mapped !== undefined) return isPublicAddress(mapped);
  return net.isIPv6(address) && PUBLIC_6.check(address, 'ipv6') && !TUNNEL_6.check(address, 'ipv6');
}

/** `t=<unix>,v1=<hex>`: HMAC-SHA256 over `<t>.<body>`, as receivers written for the protocol check it. */
export function signature(secret: string, body: string, unix: number): string {
  return `t=${unix},v1=${createHmac('sha256', secret).update(`${unix}.${body}`).digest('hex')}`;
}

/** Never rejects. */
export async function send(of: Sending): Promise<Sent> {
  const started = performance.now();
  const took = () => Math.round(performance.now() - started);
  try {
    const url = new URL(of.url);
    if (url.protocol !== 'https:' && !of.allow_private) throw new Error('only https is allowed');
    const limit = AbortSignal.any([of.signal, AbortSignal.timeout(TIMEOUT_MS)]);
    const host = url.hostname.replace(/^\[|\]$/g, '');
    const address = await unless(limit, pinned(host, of.allow_private));
    const answer = await post(url, address, { ...of, signal: limit });
    return { ...answer, error: null, duration_ms: took() };
  } catch (error) {
    const { name, message, code } = error as NodeJS.ErrnoException;
    const said = name === 'TimeoutError' ? `no answer within ${TIMEOUT_MS / 1000} s` : message || code;
    return { status: null, excerpt: null, error: (said ?? 'failed').slice(0, 500), duration_ms: took() };
  }
}

/** A name server that says nothing cannot be called off, but need not be waited for. */
function unless<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason);
    if (signal.aborted) return onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}

async function pinned(host: string, allow_private: boolean): Promise<LookupAddress> {
  const family = net.isIP(host);
  const addresses = family !== 0 ? [{ address: host, family }] : await dns.lookup(host, { all: true });
  if (!allow_private && !addresses.every(({ address }) => isPublicAddress(address)))
    throw new Error(
      'the address is not public; webhooks to private networks are not allowed on this install',
    );
  const [first] = addresses;
  if (first === undefined) throw new Error('the name has no address');
  return first;
}

function post(
  url: URL,
  { address, family }: LookupAddress,
  of: Sending,
): Promise<{ status: number; excerpt: string }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number; excerpt: string }>();
  const request = (url.protocol === 'https:' ? https : http).request(url, {
    method: 'POST',
    agent: false,
    signal: of.signal,
    lookup: (_host, options, found) =>
      options.all ? found(null, [{ address, family }]) : found(null, address, family),
    headers: {
      ...of.headers,
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(of.body),
      'user-agent': 'kiln-webhooks',
      'miosa-signature': signature(of.secret, of.body, Math.floor(of.now_ms / 1000)),
    },
  });
  request.on('error', (error) => reject((error as { cause?: unknown }).cause ?? error));
  request.on('response', (response) => {
    let text = '';
    response.setEncoding('utf8');
    const done = () => {
      resolve({ status: response.statusCode!, excerpt: text.slice(0, EXCERPT_BYTES).replaceAll('\0', '') });
      request.destroy();
    };
    response.on('data', (part: string) => {
      text += part;
      if (text.length >= EXCERPT_BYTES) done();
    });
    response.on('end', done);
    response.on('error', reject);
  });
  request.end(of.body);
  return promise;
}
