/**
 * Answers GET and HEAD from a static release: validators, ranges, redirects, compressed forms; one release per answer
 * (I9).
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { StaticFile } from '../release/static-site.ts';
import { type AcceptedCodings, acceptedCodings, CODINGS, type Coding, isCompressible } from './coding.ts';
import type { CompressedFiles } from './compressed-files.ts';
import { cut } from './connection.ts';
import type { FileCache } from './file-cache.ts';
import { sendError, sendRedirect } from './pages.ts';
import type { Log } from './routes.ts';
import type { SiteLease } from './sites.ts';
import { contentType, resolveStatic, type StaticAnswer } from './static-path.ts';
import type { Target } from './target.ts';

/** Up to this size a file is kept in memory and sent with its head in one write. */
const SMALL_FILE_BYTES = 64 * 1024;
/** Of a header with a list in it, more are not heard: a client with ten thousand of them wants to keep us busy. */
const MAX_ITEMS = 64;

export interface StaticExchange {
  request: IncomingMessage;
  response: ServerResponse;
  target: Target;
  spa_fallback: string | null;
  files: FileCache;
  compressed: CompressedFiles;
  log: Log;
}

/** Answers from the opened release. Resolves when its bytes are no longer needed. */
export async function serveStatic(of: StaticExchange, lease: SiteLease): Promise<void> {
  const { request, response, target, spa_fallback } = of;
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    return sendError(request, response, 'METHOD_NOT_ALLOWED', { allow: 'GET, HEAD' });
  }
  const answer = resolveStatic(lease.site, {
    path: target.path,
    accepts_html: acceptsHtml(request.headers.accept),
    spa_fallback,
  });
  switch (answer.kind) {
    case 'bad_path':
      return sendError(request, response, 'BAD_REQUEST');
    case 'missing':
      return sendError(request, response, 'NOT_FOUND');
    case 'redirect':
      return sendRedirect(request, response, { status: 308, location: answer.location });
    case 'file':
      return sendFile(of, lease, answer);
  }
}

/** The release's bytes as one part of a file; `end` is exclusive. */
interface Part {
  status: 200 | 206 | 404;
  start: number;
  end: number;
}

async function sendFile(
  of: StaticExchange,
  lease: SiteLease,
  answer: StaticAnswer & { kind: 'file' },
): Promise<void> {
  const { request, response } = of;
  const { file, status, cache_control } = answer;
  const type = contentType(file.path);
  const codings = isCompressible(type) ? acceptedCodings(request.headers['accept-encoding']) : null;
  const headers: Record<string, string | number> = {
    etag: etagOf(file, null),
    'cache-control': cache_control,
  };
  if (codings !== null) headers.vary = answer.varies ? 'accept, accept-encoding' : 'accept-encoding';
  else if (answer.varies) headers.vary = 'accept';
  const may_compress = codings !== null && of.compressed.has(file);
  const held = status === 200 ? heldTag(request, file, may_compress ? codings : null) : null;
  if (held !== null) {
    response.writeHead(304, { ...headers, etag: held });
    return void response.end();
  }
  headers['content-type'] = type;
  headers['x-content-type-options'] = 'nosniff';
  const coding = may_compress ? codingFor(request, codings) : null;
  if (coding !== null) {
    const must_wait = codings?.accepted.has(null) === false;
    const bytes = await of.compressed.get(lease, file, coding, must_wait);
    if (bytes !== null) return sendCompressed(of, { status, headers, file, coding, bytes });
  }
  const part = status === 200 ? choosePart(request, file) : { status, start: 0, end: file.size };
  if (status === 200) headers['accept-ranges'] = 'bytes';
  if (part === 'unsatisfiable') {
    delete headers['content-type'];
    headers['content-range'] = `bytes */${file.size}`;
    headers['content-length'] = 0;
    response.writeHead(416, headers);
    return void response.end();
  }
  if (part.status === 206) headers['content-range'] = `bytes ${part.start}-${part.end - 1}/${file.size}`;
  headers['content-length'] = part.end - part.start;
  if (request.method === 'HEAD' || part.start === part.end) {
    response.writeHead(part.status, headers);
    return void response.end();
  }
  await sendBytes(of, lease, { file, part, headers });
}

/** Each form has a validator of its own: to a cache they are different bytes. */
function etagOf(file: StaticFile, coding: Coding | null): string {
  const digest = file.sha256.slice(0, 32);
  return coding === null ? `"${digest}"` : `"${digest}-${coding}"`;
}

/**
 * The tag of a form that the client has and may use, the one that it would be sent before others. If-None-Match is
 * compared weakly (RFC 9110, 13.1.2).
 */
function heldTag(request: IncomingMessage, file: StaticFile, codings: AcceptedCodings | null): string | null {
  const header = request.headers['if-none-match'];
  if (header === undefined) return null;
  const { preferred, accepted } = codings ?? { preferred: null, accepted: new Set([null]) };
  const held = new Set(header.split(',', MAX_ITEMS).map((item) => item.trim().replace(/^W\//, '')));
  for (const coding of [preferred, null, ...CODINGS]) {
    const etag = etagOf(file, coding);
    if (accepted.has(coding) && (held.has(etag) || held.has('*'))) return etag;
  }
  return null;
}

/** Null for the file as it is, which is what parts are always of. */
function codingFor(request: IncomingMessage, { preferred, accepted }: AcceptedCodings): Coding | null {
  return request.headers.range !== undefined && accepted.has(null) ? null : preferred;
}

interface CompressedSending {
  status: number;
  headers: Record<string, string | number>;
  file: StaticFile;
  coding: Coding;
  bytes: Buffer;
}

function sendCompressed(
  { request, response }: StaticExchange,
  { status, headers, file, coding, bytes }: CompressedSending,
): void {
  response.writeHead(status, {
    ...headers,
    etag: etagOf(file, coding),
    'content-encoding': coding,
    'content-length': bytes.length,
  });
  response.end(request.method === 'HEAD' ? undefined : bytes);
}

interface Sending {
  file: StaticFile;
  part: Part;
  headers: Record<string, string | number>;
}

async function sendBytes(of: StaticExchange, lease: SiteLease, sending: Sending): Promise<void> {
  const { request, response, files, log } = of;
  const { file, part, headers } = sending;
  try {
    if (file.size <= SMALL_FILE_BYTES) {
      const bytes = files.get(file.sha256) ?? (await files.read(lease.site, file));
      response.writeHead(part.status, headers);
      return void response.end(part.status === 206 ? bytes.subarray(part.start, part.end) : bytes);
    }
    const chunks = lease.site.stream(file, part.start, part.end);
    response.once('close', () => chunks.destroy());
    for await (const chunk of chunks) {
      if (!response.headersSent) response.writeHead(part.status, headers);
      if (!response.write(chunk)) await drained(response);
      if (response.destroyed) return;
    }
    response.end();
  } catch (error) {
    if (response.destroyed) return; // the client went away
    log('error', 'a static release could not be read', { path: file.path, error: String(error) });
    // A short answer must not look whole.
    if (response.headersSent) cut(request.socket);
    else sendError(request, response, 'ARTIFACT_UNREADABLE');
  }
}

/** Resolves at the end of the connection as well, which the edge brings about when the client takes nothing. */
function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      response.off('drain', done);
      response.off('close', done);
      resolve();
    };
    response.on('drain', done);
    response.on('close', done);
  });
}

/** One `bytes` range is honoured; several, or none that we understand, get the whole file. */
function choosePart(request: IncomingMessage, file: StaticFile): Part | 'unsatisfiable' {
  const { size } = file;
  const whole: Part = { status: 200, start: 0, end: size };
  const header = request.headers.range;
  if (header === undefined || request.method !== 'GET') return whole;
  const condition = request.headers['if-range'];
  if (condition !== undefined && condition !== etagOf(file, null)) return whole;
  const range = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header.trim());
  if (range === null) return whole;
  const [, from, to] = range as unknown as [string, string, string];
  if (from === '' && to === '') return whole;
  if (from === '') {
    const start = Math.max(0, size - Number(to));
    return start < size ? { status: 206, start, end: size } : 'unsatisfiable';
  }
  const start = Number(from);
  if (to !== '' && Number(to) < start) return whole;
  if (start >= size) return 'unsatisfiable';
  return { status: 206, start, end: to === '' ? size : Math.min(size, Number(to) + 1) };
}

/** No Accept header accepts everything; an explicit `q=0` refuses. */
function acceptsHtml(accept: string | undefined): boolean {
  if (accept === undefined || accept === '') return true;
  return accept.split(',', MAX_ITEMS).some((item) => {
    const [type, ...parameters] = item.split(';').map((part) => part.trim().toLowerCase());
    if (parameters.some((parameter) => /^q=0(?:\.0*)?$/.test(parameter))) return false;
    return type === 'text/html' || type === 'text/*' || type === '*/*' || type === 'application/xhtml+xml';
  });
}
