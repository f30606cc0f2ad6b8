/** Server-sent events with back-pressure: a slow reader slows the writer, one that hangs up ends it. */
import { KilnError } from '../domain/errors.ts';
import type { AnyCall } from './call.ts';
import { takeStream } from './places.ts';

export interface Frame {
  event?: string;
  id?: string;
  data: unknown;
}

export type Send = (frame: Frame) => Promise<void>;

const HEARTBEAT_MS = 15_000;

/**
 * Runs `write` against the response's stream; the stream ends when it returns. An error becomes `event: error`, since
 * the status line is long gone. `signal` aborts when the reader is gone, and then nothing waits for it to read:
 * whatever happens, `on_end` is called. Errors: RATE_LIMITED when the key has too many streams open.
 */
export function eventStream(
  call: AnyCall,
  write: (send: Send, signal: AbortSignal) => Promise<void>,
  on_end: () => void = () => {},
): Response {
  const leave = takeStream(call);
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>(undefined, {
    highWaterMark: 16,
  });
  const writer = writable.getWriter();
  const gone = new AbortController();
  const hung_up = new Promise<void>((resolve) => gone.signal.addEventListener('abort', () => resolve()));
  writer.closed.catch(() => gone.abort());
  call.request.signal.addEventListener('abort', () => gone.abort(), { once: true });
  if (call.request.signal.aborted) gone.abort();
  const encoder = new TextEncoder();
  const put = async (text: string) => {
    if (gone.signal.aborted) return;
    const written = writer.ready.then(() => writer.write(encoder.encode(text)));
    await Promise.race([written.catch(() => gone.abort()), hung_up]);
  };
  const heartbeat = setInterval(() => {
    if ((writer.desiredSize ?? 0) > 0) put(': heartbeat\n\n');
  }, HEARTBEAT_MS);
  (async () => {
    try {
      await put(': ok\n\n');
      if (!gone.signal.aborted) await write((frame) => put(format(frame)), gone.signal);
    } catch (error) {
      const message = streamError(call, error);
      if (!gone.signal.aborted) await put(format({ event: 'error', data: { type: 'error', message } }));
    } finally {
      clearInterval(heartbeat);
      await Promise.race([writer.close().catch(() => {}), hung_up]);
      gone.abort();
      // Of one that was closed nothing is lost; one that nobody reads answers never.
      writer.abort().catch(() => {});
      leave();
      on_end();
    }
  })();
  return new Response(readable, {
    headers: {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache, no-transform',
      'x-accel-buffering': 'no',
    },
  });
}

/** One line of JSON per frame: some clients read nothing else. */
function format(frame: Frame): string {
  const id = frame.id === undefined ? '' : `id: ${frame.id}\n`;
  const event = frame.event === undefined ? '' : `event: ${frame.event}\n`;
  return `${id}${event}data: ${JSON.stringify(frame.data)}\n\n`;
}

export function wantsStream(request: Request): boolean {
  return (request.headers.get('accept') ?? '').toLowerCase().includes('text/event-stream');
}

/** What a reader is told of an error in mid-stream; faults of ours stay in our log. */
function streamError(call: AnyCall, error: unknown): string {
  if (error instanceof KilnError) return error.message;
  const { request_id } = call;
  call.deps.log('error', 'a stream broke off', {
    request_id,
    stack: error instanceof Error ? error.stack : String(error),
  });
  return `The engine met a fault; its log has it under ${request_id}.`;
}
