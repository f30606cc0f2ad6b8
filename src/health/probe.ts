/** One HTTP probe of an instance: its own connection, headers only, no redirect followed. */
import http from 'node:http';
import type { ProbeAnswer } from '../domain/failure.ts';

/** What a probe that got no HTTP status ran into; the value of `ProbeAnswer.error`. */
export type ProbeError =
  | 'refused'
  | 'unreachable'
  | 'reset'
  | 'timed out'
  | 'not http'
  | 'aborted'
  | 'failed';

export interface ProbeTarget {
  host: string;
  port: number;
  path: string;
  /** For the whole probe: connect, request, response headers. */
  timeout_ms: number;
  signal?: AbortSignal;
}

const MAX_HEADER_BYTES = 16 * 1024;
const MAX_LOCATION_CHARACTERS = 500;

/**
 * Asks once. Never rejects: whatever goes wrong is in `error`, as one of `ProbeError`. The response body is not
 * read; the connection is closed as soon as the headers are there.
 */
export function probe(target: ProbeTarget): Promise<ProbeAnswer> {
  const at = new Date().toISOString();
  const started = performance.now();
  return new Promise((resolve) => {
    let request: http.ClientRequest | null = null;
    const timer = setTimeout(() => finish(null, 'timed out'), target.timeout_ms);
    const onAbort = (): void => finish(null, 'aborted');

    // Later calls are harmless: a promise settles once.
    function finish(status: number | null, error: ProbeError | null, location?: string): void {
      clearTimeout(timer);
      target.signal?.removeEventListener('abort', onAbort);
      resolve({
        at,
        status,
        error,
        location: location?.slice(0, MAX_LOCATION_CHARACTERS) ?? null,
        duration_ms: Math.round(performance.now() - started),
      });
      request?.destroy();
    }

    if (target.signal?.aborted) return finish(null, 'aborted');
    target.signal?.addEventListener('abort', onAbort);
    try {
      request = send(target);
    } catch {
      return finish(null, 'failed'); // a path or host that node:http refuses to send
    }
    request.on('response', (response) =>
      finish(response.statusCode ?? null, null, response.headers.location),
    );
    request.on('upgrade', (response, socket) => {
      socket.destroy();
      finish(response.statusCode ?? null, null);
    });
    request.on('error', (error) => finish(null, nameError(error)));
  });
}

/** A probe passes with any 2xx. */
export function isHealthy(answer: ProbeAnswer): boolean {
  return answer.status !== null && answer.status >= 200 && answer.status < 300;
}

function send(target: ProbeTarget): http.ClientRequest {
  const request = http.request({
    agent: false,
    host: target.host,
    port: target.port,
    path: target.path,
    maxHeaderSize: MAX_HEADER_BYTES,
    // As a browser asks, by way of an edge with TLS: some GraphQL servers refuse a GET that does not want a page, and an
    // app that forces https and trusts its proxy would never answer 2xx.
    headers: {
      host: 'localhost',
      'user-agent': 'kiln-health/1',
      accept: 'text/html, application/json;q=0.9, */*;q=0.8',
      'x-forwarded-proto': 'https',
      connection: 'close',
    },
  });
  request.end();
  return request;
}

const ERRORS: Record<string, ProbeError> = {
  ECONNREFUSED: 'refused',
  ECONNRESET: 'reset',
  EPIPE: 'reset',
  EHOSTUNREACH: 'unreachable',
  ENETUNREACH: 'unreachable',
  EADDRNOTAVAIL: 'unreachable',
  ETIMEDOUT: 'timed out',
};

function nameError(error: Error): ProbeError {
  const code = (error as NodeJS.ErrnoException).code ?? '';
  if (code.startsWith('HPE_')) return 'not http';
  return ERRORS[code] ?? 'failed';
}
