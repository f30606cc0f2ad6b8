/** Headers on their way through the proxy, as flat raw lists so that case, order and repetition stay as sent. */
import type { IncomingMessage } from 'node:http';
import type { TLSSocket } from 'node:tls';
import { HOP_BY_HOP } from '../domain/hop-by-hop.ts';
import type { Target } from './target.ts';

/** What only the edge may say: a client's own values would let it pose as somebody else. */
const FORWARDED = /^(?:forwarded|x-forwarded-.*|x-real-ip)$/;

export interface ForwardOptions {
  target: Target;
  /** Keep what a proxy in front has put there, and add to it. */
  trust_forwarded: boolean;
  /** Ask for a protocol upgrade. */
  upgrade: boolean;
}

/** The headers of the request to the instance, with its own framing. */
export function requestHeaders(request: IncomingMessage, options: ForwardOptions): string[] {
  const { target, trust_forwarded, upgrade } = options;
  const named = connectionOptions(request.headers.connection);
  const headers = ['Host', target.authority];
  const chunked = request.headers['transfer-encoding'] !== undefined;
  const raw = request.rawHeaders;
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i]!.toLowerCase();
    if (name.includes('_') && isOurs(name.replaceAll('_', '-'))) continue;
    // Trailers and a length exclude each other.
    if (name === (chunked ? 'content-length' : 'trailer')) continue;
    // `Expect` is answered by the edge itself.
    if (name === 'host' || name === 'expect' || HOP_BY_HOP.has(name) || named?.has(name)) continue;
    if (FORWARDED.test(name) && !(trust_forwarded && !ADDED.has(name))) continue;
    headers.push(raw[i]!, raw[i + 1]!);
  }
  addForwarded(headers, request, options);
  const framing = request.headers;
  if (upgrade) headers.push('Connection', 'Upgrade', 'Upgrade', framing.upgrade!);
  if (/(?:^|[,\s])trailers(?:[,;\s]|$)/i.test(String(framing.te ?? ''))) headers.push('TE', 'trailers');
  // Always explicit: node frames no body of a GET by itself, and bytes without a frame become the next request.
  if (chunked) headers.push('Transfer-Encoding', 'chunked');
  else if (framing['content-length'] === undefined && !BODILESS.has(request.method!)) {
    headers.push('Content-Length', '0');
  }
  return headers;
}

/**
 * CGI, and what follows it (WSGI, Rack, PHP), tells `X_Real-IP` from `X-Real-IP` no more: both are HTTP_X_REAL_IP. So
 * what only the edge may say is not taken in such a spelling either. Other names with underscores pass, unlike in
 * nginx: apps do use headers such as `api_key`, and those speak for nobody but their client.
 */
function isOurs(name: string): boolean {
  return (
    FORWARDED.test(name) ||
    HOP_BY_HOP.has(name) ||
    name === 'host' ||
    name === 'content-length' ||
    name === 'expect'
  );
}

const BODILESS = new Set(['GET', 'HEAD', 'OPTIONS', 'DELETE', 'TRACE']);
const ADDED = new Set([
  'forwarded',
  'x-forwarded-for',
  'x-forwarded-proto',
  'x-forwarded-host',
  'x-forwarded-port',
  'x-real-ip',
]);

/** Does this request have a body to send on? */
export function hasBody(request: IncomingMessage): boolean {
  if (request.headers['transfer-encoding'] !== undefined) return true;
  const length = request.headers['content-length'];
  return length !== undefined && length !== '0';
}

function addForwarded(headers: string[], request: IncomingMessage, options: ForwardOptions): void {
  const before = options.trust_forwarded ? request.headers : {};
  const peer = (request.socket.remoteAddress ?? 'unknown').replace(/^::ffff:/, '');
  const proto = first(before['x-forwarded-proto']) ?? (isTls(request) ? 'https' : 'http');
  const host = first(before['x-forwarded-host']) ?? options.target.authority;
  const port =
    first(before['x-forwarded-port']) ?? /:(\d+)$/.exec(host)?.[1] ?? (proto === 'https' ? '443' : '80');
  const node = peer.includes(':') ? `"[${peer}]"` : peer;
  const element = `for=${node};host="${host}";proto=${proto}`;
  headers.push(
    'X-Forwarded-For',
    join(before['x-forwarded-for'], peer),
    'X-Forwarded-Proto',
    proto,
    'X-Forwarded-Host',
    host,
    'X-Forwarded-Port',
    port,
    'X-Real-IP',
    first(before['x-forwarded-for']) ?? peer,
    'Forwarded',
    join(before.forwarded, element),
  );
}

/** The headers of the answer to the client. `keep_trailer`: trailers will follow, so their announcement stays. */
export function responseHeaders(answer: IncomingMessage, keep_trailer: boolean): string[] {
  const named = connectionOptions(answer.headers.connection);
  const headers: string[] = [];
  const raw = answer.rawHeaders;
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i]!.toLowerCase();
    if (HOP_BY_HOP.has(name) || named?.has(name)) continue;
    if (name === 'trailer' && !keep_trailer) continue;
    headers.push(raw[i]!, raw[i + 1]!);
  }
  return headers;
}

/** Nobody names so many; each costs time. */
const MAX_OPTIONS = 64;

/** Header names that `Connection` declares to be for this hop only; null for the common values. */
function connectionOptions(value: string | undefined): Set<string> | null {
  if (value === undefined || value === 'keep-alive' || value === 'close' || value === 'Upgrade') return null;
  const names = value.split(',', MAX_OPTIONS).map((name) => name.trim().toLowerCase());
  // Nobody may have the headers removed that the edge relies on.
  return new Set(names.filter((name) => name !== 'host' && name !== 'content-length'));
}

function isTls(request: IncomingMessage): boolean {
  return (request.socket as Partial<TLSSocket>).encrypted === true;
}

function first(value: string | string[] | undefined): string | undefined {
  const text = Array.isArray(value) ? value[0] : value;
  return text === undefined ? undefined : text.split(',', 1)[0]!.trim() || undefined;
}

function join(before: string | string[] | undefined, added: string): string {
  return before === undefined ? added : `${before}, ${added}`;
}
