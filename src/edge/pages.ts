/** The edge's own answers: tiny, never cached, in the form the client asked for, without anything of its input. */
import { type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http';
import { discardBody } from './connection.ts';

export type EdgeError =
  | 'BAD_REQUEST'
  | 'NO_SUCH_SITE'
  | 'NOTHING_PUBLISHED'
  | 'NOT_FOUND'
  | 'METHOD_NOT_ALLOWED'
  | 'BODY_TOO_LARGE'
  | 'EXPECTATION_FAILED'
  | 'HEADERS_TOO_LARGE'
  | 'BAD_GATEWAY'
  | 'NO_INSTANCE'
  | 'BUSY'
  | 'STOPPED'
  | 'STARTING'
  | 'ARTIFACT_UNREADABLE'
  | 'GATEWAY_TIMEOUT';

/** Status, title, one sentence; `retry_after_s` where waiting helps. */
const PAGES: Record<EdgeError, { status: number; title: string; text: string; retry_after_s?: number }> = {
  BAD_REQUEST: { status: 400, title: 'Bad request', text: 'The request is malformed.' },
  NO_SUCH_SITE: { status: 404, title: 'No such site', text: 'Nothing is published under this host name.' },
  NOTHING_PUBLISHED: {
    status: 404,
    title: 'Nothing published yet',
    text: 'This site exists, but no version of it is live yet.',
  },
  NOT_FOUND: { status: 404, title: 'Not found', text: 'This page does not exist.' },
  METHOD_NOT_ALLOWED: {
    status: 405,
    title: 'Method not allowed',
    text: 'This site is static: it answers GET and HEAD.',
  },
  BODY_TOO_LARGE: { status: 413, title: 'Body too large', text: 'The request body is over the size limit.' },
  EXPECTATION_FAILED: {
    status: 417,
    title: 'Expectation failed',
    text: 'The only expectation that can be met is 100-continue.',
  },
  HEADERS_TOO_LARGE: { status: 431, title: 'Too many headers', text: 'The request has too many headers.' },
  BAD_GATEWAY: { status: 502, title: 'Bad gateway', text: 'The app did not answer properly.' },
  NO_INSTANCE: {
    status: 503,
    title: 'Unavailable',
    text: 'No healthy instance of the app is running at the moment.',
    retry_after_s: 5,
  },
  BUSY: {
    status: 503,
    title: 'Busy',
    text: 'The app has as many requests in hand as it may have at once.',
    retry_after_s: 2,
  },
  STOPPED: { status: 503, title: 'Stopped', text: 'This app has been stopped.', retry_after_s: 60 },
  STARTING: { status: 503, title: 'Starting', text: 'The edge is starting.', retry_after_s: 2 },
  ARTIFACT_UNREADABLE: {
    status: 503,
    title: 'Unavailable',
    text: 'The files of this site cannot be read at the moment.',
    retry_after_s: 10,
  },
  GATEWAY_TIMEOUT: { status: 504, title: 'Gateway timeout', text: 'The app did not answer in time.' },
};

/** Answers with the page of `error`, unless an answer has begun already. `x-kiln-error` tells it from the app's own. */
export function sendError(
  request: IncomingMessage,
  response: ServerResponse,
  error: EdgeError,
  more: Record<string, string> = {},
): void {
  if (response.headersSent || response.destroyed) return;
  const page = PAGES[error];
  const { type, body } = render(error, request.headers.accept ?? '');
  const headers: Record<string, string | number> = {
    'content-type': type,
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    'x-kiln-error': error,
    ...more,
  };
  if (page.retry_after_s !== undefined) headers['retry-after'] = page.retry_after_s;
  // Said again: what an app called its status may still be set, from an answer that could not be passed on.
  response.writeHead(page.status, STATUS_CODES[page.status], headers);
  response.end(request.method === 'HEAD' ? undefined : body);
  discardBody(request);
}

export interface Redirect {
  /** 301 to another host of the site, 308 to another path of it. */
  status: 301 | 308;
  /** Made of the client's own path, which was checked by the HTTP parser. */
  location: string;
}

export function sendRedirect(request: IncomingMessage, response: ServerResponse, to: Redirect): void {
  const headers = { location: to.location, 'content-length': 0, 'cache-control': 'no-cache' };
  response.writeHead(to.status, headers);
  response.end();
  discardBody(request);
}

function render(error: EdgeError, accept: string): { type: string; body: string } {
  const { status, title, text } = PAGES[error];
  if (accept.includes('text/html')) {
    const body = `<!doctype html><html lang="en"><meta charset="utf-8"><title>${title}</title><h1>${status} ${title}</h1><p>${text}</p></html>\n`;
    return { type: 'text/html; charset=utf-8', body };
  }
  if (accept.includes('json')) {
    const body = `${JSON.stringify({ error: { code: error, message: text } })}\n`;
    return { type: 'application/json; charset=utf-8', body };
  }
  return { type: 'text/plain; charset=utf-8', body: `${status} ${title}: ${text}\n` };
}
