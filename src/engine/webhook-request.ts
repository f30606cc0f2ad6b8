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
import { reachOf } from '../isolation/network/address.ts';

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

/** Anything that is not an address is not public. Nor is what this host itself has, even when the world can reach it. */
export function isPublicAddress(address: string): boolean {
  return reachOf(address) === 'public';
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
