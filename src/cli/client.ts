/**
 * Calls to the API: the bearer key, one Idempotency-Key per mutation (kept over retries, so a repeated publish is the
 * same publish), retries where repeating is safe, and errors as CliError with code, request id and next step.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ErrorBody } from '../api/contract/error.ts';
import { type AnyCall, type Query, TypedClient } from '../client/client.ts';
import { folderHolder } from '../engine/folders.ts';
import type { Connection } from './connection.ts';
import { CliError, EXIT, exitOfErrorCode, interrupted } from './exit.ts';
import { readEvents, type StreamEvent } from './sse.ts';

/** How a call travels, beside what it says. */
export interface Travel {
  /** Sent as it is; made anew for each try. */
  raw?: () => ReadableStream<Uint8Array>;
  /** How long the answer may take; 60 s unless given. */
  timeout_ms?: number;
  /** False: never sent again, for the engine may have done it although its answer was lost. */
  repeatable?: boolean;
}

type Call = AnyCall & Travel;
type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';

const TIMEOUT_MS = 60_000;
const DOWNLOAD = 'application/x-tar, application/octet-stream';
const RETRIES = 4;
const FIRST_DELAY_MS = 150;
const MAX_DELAY_MS = 1000;
const START_WAIT_MS = 15_000;
const MAX_RETRY_AFTER_MS = 30_000;
const RETRY_STATUS = new Set([429, 502, 503, 504]);

export class Client extends TypedClient<Travel> {
  readonly connection: Connection;
  readonly #interrupted: AbortSignal;

  constructor(connection: Connection, interrupted_signal: AbortSignal) {
    super();
    this.connection = connection;
    this.#interrupted = interrupted_signal;
  }

  protected override isNotFound(error: unknown): boolean {
    return error instanceof CliError && error.code === 'NOT_FOUND';
  }

  /** The bytes of an answer that is no JSON. */
  async download(path: string): Promise<ReadableStream<Uint8Array>> {
    const response = await this.#send('GET', path, {}, null, this.#interrupted, DOWNLOAD);
    return ReadableStream.from(this.#pieces(response.body));
  }

  async *#pieces(body: ReadableStream<Uint8Array> | null): AsyncGenerator<Uint8Array> {
    try {
      if (body !== null) yield* body;
    } catch (error) {
      throw this.#interrupted.aborted ? interrupted() : this.#brokenOff(error);
    }
  }

  /** Frames of a stream until it ends or `signal` aborts. @throws CliError when the stream breaks off, or says it failed. */
  async *events(path: string, query: Query, signal: AbortSignal): AsyncGenerator<StreamEvent> {
    const either = AbortSignal.any([signal, this.#interrupted]);
    const response = await this.#send('GET', path, { query }, null, either, 'text/event-stream');
    if (response.body === null) return;
    try {
      for await (const frame of readEvents(response.body)) {
        if (frame.event === 'error') throw streamFailed(frame);
        yield frame;
      }
    } catch (error) {
      if (error instanceof CliError) throw error;
      throw either.aborted ? interrupted() : this.#brokenOff(error);
    }
  }

  override async request(method: Method, path: string, call: Call): Promise<unknown> {
    const key = method === 'GET' || call.raw ? null : randomUUID();
    const response = await this.#send(method, path, call, key, this.#interrupted, 'application/json');
    if (response.status === 204) return undefined;
    try {
      return await response.json();
    } catch (error) {
      throw this.#unreachable(error);
    }
  }

  async #send(
    method: Method,
    path: string,
    call: Call,
    idempotency_key: string | null,
    signal: AbortSignal,
    accept: string,
  ): Promise<Response> {
    const url = this.#url(path, call.query);
    const headers = {
      accept,
      authorization: `Bearer ${this.connection.key}`,
      'user-agent': 'kiln-cli',
      ...(call.raw ? { 'content-type': 'application/x-tar' } : {}),
      ...(call.body === undefined ? {} : { 'content-type': 'application/json' }),
      ...(idempotency_key === null ? {} : { 'idempotency-key': idempotency_key }),
    };
    const unlimited = call.raw !== undefined || accept === 'text/event-stream' || accept === DOWNLOAD;
    const retries = call.repeatable === false ? 0 : RETRIES;
    const started_ms = performance.now();
    for (let tries = 0; ; tries++) {
      let delay_ms = Math.min(FIRST_DELAY_MS * 2 ** tries, MAX_DELAY_MS);
      try {
        const response = await fetch(url, {
          method,
          headers,
          redirect: 'error',
          signal: unlimited
            ? signal
            : AbortSignal.any([signal, AbortSignal.timeout(call.timeout_ms ?? TIMEOUT_MS)]),
          ...(call.raw ? { body: call.raw(), duplex: 'half' } : {}),
          ...(call.body === undefined ? {} : { body: JSON.stringify(call.body) }),
        } as RequestInit);
        if (response.ok) return response;
        if (!RETRY_STATUS.has(response.status) || tries >= retries)
          throw await errorOf(response, this.connection);
        await response.body?.cancel();
        delay_ms = retryAfter(response) ?? delay_ms;
      } catch (error) {
        if (error instanceof CliError) throw error;
        if (signal.aborted) throw interrupted();
        if (tries >= retries && (retries === 0 || !this.#isStarting(started_ms)))
          throw this.#unreachable(error);
      }
      await pause(delay_ms, signal);
    }
  }

  /** An engine takes its data folder first and listens last. */
  #isStarting(since_ms: number): boolean {
    const { local, data_dir } = this.connection;
    return local && performance.now() - since_ms < START_WAIT_MS && folderHolder(data_dir) !== null;
  }

  #url(path: string, query: Query = {}): string {
    const url = new URL(`${this.connection.api_url}/api/v1${path}`);
    for (const [name, value] of Object.entries(query))
      if (value !== null && value !== undefined) url.searchParams.set(name, String(value));
    return url.href;
  }

  /** After the head of an answer. */
  #brokenOff(error: unknown): CliError {
    return new CliError(
      EXIT.unreachable,
      'NO_ENGINE',
      `The engine at ${this.connection.api_url} went away in the middle of its answer (${reasonOf(error)}).`,
      { next_step: 'When it is up again (`kiln up`), give the same command.', cause: error },
    );
  }

  #unreachable(error: unknown): CliError {
    return new CliError(
      EXIT.unreachable,
      'NO_ENGINE',
      `The engine at ${this.connection.api_url} does not answer (${reasonOf(error)}).`,
      { next_step: 'Start it with `kiln up`, or name another with --api or --data.', cause: error },
    );
  }
}

function streamFailed({ data }: StreamEvent): CliError {
  const said = (data as { message?: unknown } | null)?.message;
  const message = typeof said === 'string' ? said : 'The engine ended its answer with an error.';
  return new CliError(EXIT.engine, 'STREAM_FAILED', message, {
    next_step: 'Give the same command again; `kiln logs` without -f reads what was stored.',
  });
}

/** A path segment made of text somebody typed. */
export function segment(text: string): string {
  return encodeURIComponent(text);
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  try {
    await sleep(ms, undefined, { signal });
  } catch {
    throw interrupted();
  }
}

function retryAfter(response: Response): number | null {
  const seconds = Number(response.headers.get('retry-after') ?? Number.NaN);
  return Number.isFinite(seconds) && seconds >= 0 ? Math.min(seconds * 1000, MAX_RETRY_AFTER_MS) : null;
}

function reasonOf(error: unknown): string {
  const cause = (error as { cause?: { code?: string; message?: string } }).cause;
  if ((error as Error).name === 'TimeoutError') return 'no answer in time';
  return cause?.code ?? cause?.message ?? (error as Error).message ?? String(error);
}

async function errorOf(response: Response, connection: Connection): Promise<CliError> {
  const text = (await response.text().catch(() => '')).slice(0, 100_000);
  let body: Partial<ErrorBody> = {};
  try {
    body = JSON.parse(text) as Partial<ErrorBody>;
  } catch {
    // Not from Kiln: a proxy, or another server on that port.
  }
  const code = body.error?.code ?? body.code ?? `HTTP_${response.status}`;
  const message =
    body.error?.message ??
    body.message ??
    `${connection.api_url} answered ${response.status}, and not as a Kiln engine does.`;
  const detail = body.error?.details?.next_step;
  return new CliError(exitOfErrorCode(code, response.status), code, message, {
    next_step: typeof detail === 'string' ? detail : nextStep(code, connection),
    request_id: body.error?.request_id ?? body.request_id ?? response.headers.get('x-request-id'),
    fields: body.errors ?? null,
  });
}

/** For errors whose message cannot know what the user of a command line can do. */
function nextStep(code: string, connection: Connection): string | null {
  if (code === 'invalid_token')
    return `Give the right key with --key or KILN_KEY; that of a local engine is in ${connection.data_dir}/api.key.`;
  if (code === 'insufficient_scope') return 'Use a key that may do this: `kiln keys ls` shows what each may.';
  if (code === 'INTERNAL_ERROR')
    return 'The log of the engine (<data>/logs/engine.log) has it under the request id.';
  if (code.startsWith('HTTP_')) return 'Check --api, KILN_API or --data.';
  return null;
}
