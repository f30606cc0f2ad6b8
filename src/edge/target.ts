/** What a request asks for: which host, and which path. Everything here comes from strangers. */
import type { IncomingMessage } from 'node:http';

export interface Target {
  /** Lower case, without port: what the route is found by. */
  host: string;
  /** As the client wrote it, with port: what the app is told. */
  authority: string;
  /** Path and query, beginning with a slash. */
  path: string;
}

/** A host name or an IPv4 address, or an IPv6 address in brackets; then perhaps a port. */
const AUTHORITY = /^([a-z0-9](?:[a-z0-9._-]{0,251}[a-z0-9])?|\[[0-9a-f:.]{2,45}\])\.?(?::\d{1,5})?$/i;
const ABSOLUTE = /^https?:\/\/([^/?#]*)(.*)$/i;

/**
 * Null when the host is missing or malformed, or the target is neither a path nor an absolute form that agrees
 * with the Host header (two parties that read a different host from one request is how caches get poisoned).
 */
export function readTarget(request: IncomingMessage): Target | null {
  const authority = onlyHost(request);
  const url = request.url;
  if (authority === undefined || url === undefined) return null;
  const host = AUTHORITY.exec(authority)?.[1];
  if (host === undefined) return null;
  if (url.startsWith('/')) return { host: host.toLowerCase(), authority, path: url };
  const absolute = ABSOLUTE.exec(url);
  if (absolute === null || absolute[1]!.toLowerCase() !== authority.toLowerCase()) return null;
  const path = absolute[2]!;
  return { host: host.toLowerCase(), authority, path: path.startsWith('/') ? path : `/${path}` };
}

/** Node keeps the first of several Host headers; a proxy or app beside us might keep the last (RFC 9112, 3.2: refuse). */
function onlyHost({ headers, rawHeaders }: IncomingMessage): string | undefined {
  let hosts = 0;
  for (let i = 0; i < rawHeaders.length; i += 2)
    if (rawHeaders[i]!.length === 4 && rawHeaders[i]!.toLowerCase() === 'host') hosts++;
  return hosts > 1 ? undefined : headers.host;
}

/**
 * The decoded path of a static file, without the leading slash; a trailing slash stays. Null when it cannot name
 * a file of a release: broken percent-encoding, NUL, backslash, `.` or `..` segments.
 */
export function decodePath(path: string): string | null {
  const raw = path.split(/[?#]/, 1)[0]!;
  let decoded: string;
  try {
    decoded = raw.includes('%') ? decodeURIComponent(raw) : raw;
  } catch {
    return null;
  }
  if (decoded.includes('\0') || decoded.includes('\\')) return null;
  if (/(?:^|\/)\.{1,2}(?:\/|$)/.test(decoded)) return null;
  return decoded.slice(1);
}
