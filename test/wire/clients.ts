/**
 * How the five existing clients send, retry, unwrap and read errors, after section 3 of the wire contract: small
 * re-implementations of the habits alone, one class each, so that an answer that breaks one of them breaks a test.
 */
import { randomUUID } from 'node:crypto';

// What a client makes of an answer is data of the wire.
// biome-ignore lint/suspicious/noExplicitAny: see above
export type Json = any;

export class ClientError extends Error {
  readonly code: string | null;
  readonly status: number;
  readonly kind: string;
  readonly request_id: string | null;
  readonly retry_after: number | null;
  constructor(message: string, of: Partial<Omit<ClientError, 'message'>> & { status: number }) {
    super(message);
    this.status = of.status;
    this.code = of.code ?? null;
    this.kind = of.kind ?? 'Error';
    this.request_id = of.request_id ?? null;
    this.retry_after = of.retry_after ?? null;
  }
}

export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

interface Options {
  base: string;
  key: string;
  fetch: Fetch;
}

abstract class Base {
  protected readonly options: Options;
  tries = 0;
  constructor(options: Options) {
    this.options = options;
  }

  protected send(method: string, path: string, headers: Record<string, string>, body?: string) {
    this.tries++;
    const { base, key, fetch } = this.options;
    return fetch(`${base}/api/v1${path}`, {
      method,
      headers: { authorization: `Bearer ${key}`, ...headers },
      ...(body === undefined ? {} : { body }),
    });
  }

  /** Three more tries, with the key of the first; the waits are not the point here. */
  protected async retrying(once: () => Promise<Response>, again: (status: number) => boolean) {
    for (let n = 0; ; n++) {
      const answer = await once();
      if (n >= 3 || !again(answer.status)) return answer;
      await answer.body?.cancel();
    }
  }
}

const RETRIED = new Set([429, 500, 502, 503, 504]);

export class TypeScriptClient extends Base {
  async call(method: string, path: string, body?: object, key: string = randomUUID()): Promise<Json> {
    const text = body === undefined ? undefined : JSON.stringify(body);
    const headers: Record<string, string> = method === 'GET' ? {} : { 'Idempotency-Key': key };
    if (text !== undefined) headers['Content-Type'] = 'application/json';
    const once = () => this.send(method, path, headers, text);
    const answer = await this.retrying(once, (status) => RETRIED.has(status));
    if (answer.status === 204) return undefined;
    if (!answer.ok) throw await this.#error(answer);
    // `JSON.parse('')` is what an empty 200 would end in.
    const json = JSON.parse(await answer.text());
    return json !== null && typeof json === 'object' && 'data' in json ? json.data : json;
  }

  async #error(answer: Response): Promise<ClientError> {
    const json: Json = await answer.json().catch(() => ({}));
    const { status } = answer;
    const forced = status === 429 ? 'RATE_LIMITED' : null;
    return new ClientError(json.error?.message ?? json.message ?? `HTTP ${status}`, {
      status,
      code: forced ?? json.error?.code ?? json.code ?? 'UNKNOWN_ERROR',
      kind: status === 401 || status === 403 ? 'Auth' : status === 404 ? 'NotFound' : 'Validation',
      request_id: answer.headers.get('x-request-id'),
    });
  }
}

const PY_ENUMS: Record<string, readonly string[]> = {
  deployment: ['pending', 'building', 'running', 'stopped', 'failed'],
  version: ['created', 'building', 'ready', 'failed', 'archived'],
  kind: ['static', 'dynamic', 'sandbox_backed'],
  instance: ['provisioning', 'starting', 'healthy', 'unhealthy', 'error', 'stopped', 'destroyed'],
  build: ['queued', 'building', 'succeeded', 'failed', 'cancelled'],
  service: [
    'static_web',
    'web',
    'api',
    'function',
    'worker',
    'cron',
    'postgres',
    'redis',
    'bucket',
    'volume',
  ],
  source: ['repo', 'sandbox', 'upload'],
  domain: ['pending', 'verified', 'active', 'failed', 'removed'],
};
/** May be absent, but not null. */
const PY_NOT_NULL = ['metadata', 'artifact_manifest', 'services', 'auto_deploy', 'desired_replicas'];

/** The strict models: unknown enum values, nulls in the wrong place and missing fields are errors. */
export function pythonModel(model: string, required: string[], row: Json): Json {
  for (const field of required)
    if (row[field] === undefined || row[field] === null) throw new Error(`${model}.${field} is required`);
  for (const field of PY_NOT_NULL) if (row[field] === null) throw new Error(`${model}.${field} is null`);
  const oneOf = (name: string, value: unknown) => {
    if (value != null && !PY_ENUMS[name]!.includes(String(value)))
      throw new Error(`${model}: ${String(value)} is no ${name}`);
  };
  if (PY_ENUMS[model] && model !== 'service') oneOf(model, row.state);
  if (model === 'version') oneOf('kind', row.kind);
  if (model === 'service') oneOf('service', row.type);
  if (model === 'deployment') oneOf('source', row.source_type);
  return row;
}

export class PythonClient extends Base {
  /** An empty body is not sent at all. */
  async call(method: string, path: string, body?: object, key = randomUUID().replaceAll('-', '')) {
    const text = body === undefined || Object.keys(body).length === 0 ? undefined : JSON.stringify(body);
    const headers: Record<string, string> = { Accept: 'application/json' };
    if (method !== 'GET') headers['Idempotency-Key'] = key;
    if (text !== undefined) headers['Content-Type'] = 'application/json';
    const once = () => this.send(method, path, headers, text);
    const answer = await this.retrying(once, (status) => RETRIED.has(status));
    if (!(answer.headers.get('content-type') ?? '').includes('application/json'))
      return (await answer.text()) as Json;
    const json: Json = await answer.json();
    if (answer.ok) return 'data' in json ? json.data : json;
    throw new ClientError(json.error?.message ?? json.message, {
      status: answer.status,
      code: json.error?.code ?? json.code,
      kind: answer.status === 422 ? 'Validation' : 'Miosa',
      request_id: answer.headers.get('x-request-id') ?? json.request_id,
      retry_after: json.retry_after ?? null,
    });
  }
}

export class GoClient extends Base {
  /** Needs `data` for everything of a deployment; retries every 5xx. */
  async call(method: string, path: string, body?: object, key = randomUUID().replaceAll('-', '')) {
    const text = body === undefined ? undefined : JSON.stringify(body);
    const headers: Record<string, string> = { 'User-Agent': 'miosa-go/0.3.0' };
    if (method !== 'GET') headers['Idempotency-Key'] = key;
    if (text !== undefined) headers['Content-Type'] = 'application/json';
    const again = (status: number) => status === 429 || status >= 500;
    const answer = await this.retrying(() => this.send(method, path, headers, text), again);
    const raw = await answer.text();
    const json: Json = raw === '' ? null : JSON.parse(raw);
    if (answer.ok) {
      if (json?.data === undefined) throw new Error(`${path}: no data in the envelope`);
      return json.data as Json;
    }
    const flat = [json.message, json.error, json.detail].find((value) => typeof value === 'string');
    throw new ClientError(flat ?? raw, {
      status: answer.status,
      request_id: answer.headers.get('X-Request-ID'),
      retry_after: json.retry_after ?? null,
    });
  }
}

export class ElixirClient extends Base {
  /** Sends the key's name in lower case; no retries. */
  async call(method: string, path: string, body?: object, key = randomUUID().replaceAll('-', '')) {
    const headers: Record<string, string> = method === 'GET' ? {} : { 'idempotency-key': key };
    const text = body === undefined ? undefined : JSON.stringify(body);
    if (text !== undefined) headers['content-type'] = 'application/json';
    const answer = await this.send(method, path, headers, text);
    const json: Json = await answer.json();
    if (answer.ok) return json.data ?? json;
    throw new ClientError(JSON.stringify(json.error), { status: answer.status, code: json.code });
  }
}

export class CliClient extends Base {
  /** A JSON content type on every request, body or not; no keys; parses every answer but those of DELETE. */
  async call(method: string, path: string, body?: object, accept = 'application/json') {
    const headers = { 'Content-Type': 'application/json', Accept: accept };
    const text = body === undefined ? undefined : JSON.stringify(body);
    const answer = await this.send(method, path, headers, text);
    if (answer.status === 204) return undefined;
    if (accept.startsWith('text/event-stream')) return answer as Json;
    const json: Json = JSON.parse(await answer.text());
    if (answer.ok) return json;
    const { status } = answer;
    throw new ClientError(json.error?.message ?? json.error ?? json.message, {
      status,
      code: status === 401 || status === 403 ? null : (json.error?.code ?? null),
      kind: status === 429 || status >= 500 ? 'Retryable' : 'Final',
      request_id: answer.headers.get('x-request-id'),
    });
  }
}
