/**
 * One HTTP request to a registry: limits, time-outs, redirects that take no credentials to other hosts, and a few
 * attempts where a second one can do no harm. What the answer means is for registry.ts to say.
 */
import http from 'node:http';
import https from 'node:https';
import type { Readable } from 'node:stream';
import { setTimeout as pause } from 'node:timers/promises';
import tls from 'node:tls';
import { KilnError } from '../../domain/errors.ts';
import { isLoopback } from './reference.ts';

export interface Wire {
  send(request: Request): Promise<Answer>;
  close(): void;
}

export interface Request {
  method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH';
  url: URL;
  headers: Record<string, string>;
  /** `open` is called once per attempt. */
  body?: { length: number; open(): Promise<Readable> };
  signal?: AbortSignal;
  /** The same request twice is harmless. */
  repeatable: boolean;
}

export interface Answer {
  status: number;
  headers: http.IncomingHttpHeaders;
  /** Read it to its end, or destroy it. */
  body: http.IncomingMessage;
  /** Where it came from in the end. */
  url: URL;
}

export interface WireOptions {
  /** http: also to hosts other than this machine; https: always. Undefined: http on loopback only. */
  scheme?: 'http' | 'https';
  /** HTTP_PROXY, HTTPS_PROXY, NO_PROXY of the engine's environment. */
  proxy_env?: Record<string, string | undefined>;
  /** Certificates to trust besides those of Node and of the system, PEM. */
  ca?: string[];
  /** No byte for so long ends an attempt. Milliseconds. */
  idle_ms?: number;
  /** Pause before the second attempt; doubles. Milliseconds. */
  backoff_ms?: number;
}

const MAX_ATTEMPTS = 4;
const MAX_REDIRECTS = 5;
const MAX_RETRY_AFTER_MS = 30_000;
const MAX_SOCKETS = 6;

export function baseUrl(host: string, { scheme }: WireOptions): URL {
  return new URL(`${scheme ?? (isLoopback(host) ? 'http' : 'https')}://${host}/`);
}

export function makeWire(o: WireOptions): Wire {
  const settings = { keepAlive: true, maxSockets: MAX_SOCKETS, proxyEnv: o.proxy_env ?? {} };
  const plain = new http.Agent(settings);
  const secure = new https.Agent({ ...settings, ca: trusted(o.ca ?? []) });
  const idle_ms = o.idle_ms ?? 60_000;
  const once = async (request: Request): Promise<Answer> => {
    let { url, headers } = request;
    for (let hop = 0; ; hop++) {
      const agent = url.protocol === 'https:' ? secure : plain;
      const answer = await exchange({ ...request, url, headers }, agent, idle_ms);
      const to = answer.status >= 301 && answer.status <= 308 ? answer.headers.location : undefined;
      if (to === undefined || !['GET', 'HEAD'].includes(request.method)) return answer;
      answer.body.resume();
      if (hop === MAX_REDIRECTS) throw refused(url, `redirects more than ${MAX_REDIRECTS} times`);
      const next = resolveLocation(to, url, o.scheme);
      headers = headersFor(next, url, headers);
      url = next;
    }
  };
  return {
    send: (request) => attempts(request, once, o.backoff_ms ?? 500),
    close: () => {
      plain.destroy();
      secure.destroy();
    },
  };
}

/** Naming any certificate takes the others' place, so all are named: Node's own, the environment's, the system's. */
function trusted(ca: string[]): string[] {
  return [...new Set([...tls.getCACertificates('default'), ...tls.getCACertificates('system'), ...ca])];
}

/** Credentials stay with the host that they were given for. */
export function headersFor(next: URL, from: URL, headers: Record<string, string>): Record<string, string> {
  if (next.origin === from.origin) return headers;
  const { authorization: _, ...others } = headers;
  return others;
}

/** A Location of a registry: http(s) only, and never from https down to http. */
export function resolveLocation(location: string, from: URL, scheme?: WireOptions['scheme']): URL {
  if (!URL.canParse(location, from.href)) throw refused(from, 'redirects to something that is no address');
  const to = new URL(location, from);
  const is_secure = to.protocol === 'https:';
  const is_plain = to.protocol === 'http:' && from.protocol === 'http:';
  if (!is_secure && !(is_plain && (scheme === 'http' || isLoopback(to.host))))
    throw refused(from, `redirects to ${to.protocol}//${to.host}, which is not encrypted`);
  to.username = '';
  to.password = '';
  return to;
}

function refused(url: URL, why: string): KilnError {
  return new KilnError('STORAGE_FAILED', `The registry ${url.host} ${why}. Ask who runs it.`);
}

/** Status codes that a later attempt may change. */
const TEMPORARY = new Set([408, 425, 429, 500, 502, 503, 504]);

async function attempts(
  request: Request,
  once: (request: Request) => Promise<Answer>,
  backoff_ms: number,
): Promise<Answer> {
  for (let attempt = 1; ; attempt++) {
    const is_last = attempt === MAX_ATTEMPTS || !request.repeatable;
    let wait_ms = backoff_ms * 2 ** (attempt - 1);
    try {
      const answer = await once(request);
      if (is_last || !TEMPORARY.has(answer.status)) return answer;
      answer.body.resume();
      const seconds = Number(answer.headers['retry-after'] ?? 0);
      if (seconds > 0) wait_ms = Math.min(seconds * 1000, MAX_RETRY_AFTER_MS);
    } catch (error) {
      request.signal?.throwIfAborted();
      if (error instanceof KilnError) throw error;
      if (is_last) throw unreachable(request.url, error);
    }
    await pause(wait_ms, undefined, { signal: request.signal });
  }
}

export function unreachable(url: URL, error: unknown): KilnError {
  const { code, message } = error as NodeJS.ErrnoException;
  return new KilnError(
    'STORAGE_FAILED',
    `The registry ${url.host} cannot be reached (${code ?? message}). Check its name, the network and the proxy settings, then try again.`,
    { cause: error },
  );
}

async function exchange(request: Request, agent: http.Agent, idle_ms: number): Promise<Answer> {
  const { method, url, body, signal } = request;
  const length = body ? { 'content-length': String(body.length) } : {};
  const source = await body?.open();
  const { request: start } = url.protocol === 'https:' ? https : http;
  return new Promise<Answer>((resolve, reject) => {
    const headers = { 'user-agent': 'kiln', ...request.headers, ...length };
    const sent = start(url, { method, agent, headers, ...(signal ? { signal } : {}) });
    sent.setTimeout(idle_ms, () => sent.destroy(new Error(`no answer for ${idle_ms / 1000} s`)));
    sent.on('error', (error) => {
      source?.destroy();
      reject(error);
    });
    sent.on('response', (message) => {
      // An answer before the end of the body is a refusal: the rest is not wanted.
      if (!sent.writableFinished) {
        source?.destroy();
        message.once('end', () => sent.destroy());
      }
      resolve({ status: message.statusCode ?? 0, headers: message.headers, body: message, url });
    });
    if (!source) {
      sent.end();
      return;
    }
    source.on('error', (error) => sent.destroy(error));
    source.pipe(sent);
  });
}

/** A small answer, whole. */
export async function readAnswer(answer: Answer, max_bytes: number): Promise<Buffer> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of answer.body) {
    length += part.length;
    if (length > max_bytes) {
      answer.body.destroy();
      throw refused(answer.url, `answers with more than ${max_bytes} bytes`);
    }
    parts.push(part);
  }
  return Buffer.concat(parts);
}
