import type { IncomingHttpHeaders } from 'node:http';
import { HOP_BY_HOP } from '../../domain/hop-by-hop.ts';

/** Settled by this proxy itself. */
const OWN = ['trailer', 'http2-settings', 'expect'];

/** What `Connection` must not take away: where a message ends, and whom it is for. */
const KEPT: ReadonlySet<string> = new Set(['content-length', 'host']);

/** Headers to pass on, as a flat list with their own spelling and order. `besides` are dropped as well. */
export function endToEnd(raw_headers: readonly string[], besides: readonly string[]): string[] {
  const pairs: [string, string][] = [];
  for (let at = 0; at + 1 < raw_headers.length; at += 2) pairs.push([raw_headers[at]!, raw_headers[at + 1]!]);
  const named = pairs
    .filter(([name]) => name.toLowerCase() === 'connection')
    .flatMap(([, value]) => value.toLowerCase().split(','))
    .map((name) => name.trim())
    .filter((name) => !KEPT.has(name));
  const dropped = new Set([...HOP_BY_HOP, ...OWN, ...named, ...besides]);
  return pairs.filter(([name]) => !dropped.has(name.toLowerCase())).flat();
}

/** How the body of a request that was parsed is marked off on the way out; one of the two, never both. */
export function framing(headers: IncomingHttpHeaders): string[] {
  if (headers['transfer-encoding'] !== undefined) return ['transfer-encoding', 'chunked'];
  return headers['content-length'] === undefined ? [] : ['content-length', headers['content-length']];
}
