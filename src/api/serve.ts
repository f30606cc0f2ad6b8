import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
  STATUS_CODES,
} from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { getRequestListener, RequestError } from '@hono/node-server';
import type { OpenAPIHono } from '@hono/zod-openapi';
import { KilnError } from '../domain/errors.ts';
import type { ApiDeps } from './call.ts';
import { errorAnswer } from './errors.ts';

/** What is still running this long after `close` loses its connection (streams have no end of their own). */
const CLOSE_GRACE_MS = 1000;

const SERVER_OPTIONS = {
  /** A path of 4,096 characters, percent-encoded, must fit into the request line. */
  maxHeaderSize: 64 * 1024,
  /** Uploads and held answers may take minutes; headers may not. */
  requestTimeout: 0,
  headersTimeout: 30_000,
  /** Refused below, in words. */
  requireHostHeader: false,
};

export interface ServedApi {
  url: string;
  port: number;
  /** Takes no new requests; resolves when the last connection is gone. */
  close(): Promise<void>;
}

/** Listens; port 0 takes a free one. Rejects when the address cannot be had (EADDRINUSE, EACCES). */
export async function serveApi(
  app: OpenAPIHono,
  at: { host: string; port: number },
  by: Pick<ApiDeps, 'newId' | 'log'>,
): Promise<ServedApi> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const server = makeServer(app, at.host, by);
  server.on('error', reject);
  server.listen(at.port, at.host, resolve);
  await promise;
  server.off('error', reject);
  const { port } = server.address() as AddressInfo;
  const host = at.host.includes(':') ? `[${at.host}]` : at.host;
  return {
    url: `http://${host}:${port}`,
    port,
    close: () =>
      new Promise((done) => {
        server.close(() => done());
        server.closeIdleConnections();
        setTimeout(() => server.closeAllConnections(), CLOSE_GRACE_MS).unref();
      }),
  };
}

/** What never gets to the app, since it is no request that the app could be asked, is answered as the app would. */
function makeServer(
  app: OpenAPIHono,
  hostname: string,
  { newId, log }: Pick<ApiDeps, 'newId' | 'log'>,
): Server {
  const answer = (error: unknown) => errorAnswer(error, newId('req'));
  const listener = getRequestListener(app.fetch, {
    hostname,
    errorHandler: (error) => {
      if (error instanceof RequestError) return answer(malformed(error.message));
      log('error', 'a request could not be answered', { error: String(error) });
      return answer(error);
    },
  });
  const serve = async (incoming: IncomingMessage, outgoing: ServerResponse) => {
    if (incoming.headers.host !== undefined || incoming.httpVersion === '1.0')
      return listener(incoming, outgoing);
    const { status, headers, body } = await rawAnswer(answer(malformed('there is no Host header')));
    outgoing.writeHead(status, headers).end(body);
  };
  const server = createServer(SERVER_OPTIONS, serve);
  server.on('checkExpectation', serve);
  server.on('connect', (_request, socket) =>
    writeRaw(
      socket,
      answer(new KilnError('METHOD_NOT_ALLOWED', 'This is an API, not a proxy: it takes no CONNECT.')),
    ),
  );
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Duplex) => {
    const { _httpMessage: begun } = socket as Duplex & { _httpMessage?: ServerResponse };
    if (!socket.writable || begun?.headersSent) return socket.destroy();
    return writeRaw(socket, answer(refusal(error)));
  });
  return server;
}

function refusal({ code, message }: NodeJS.ErrnoException): KilnError {
  if (code === 'HPE_HEADER_OVERFLOW')
    return new KilnError('HEADERS_TOO_LARGE', 'Request line and headers are over 64 KiB; send less in them.');
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT')
    return new KilnError('REQUEST_TIMEOUT', 'The headers did not arrive within 30 seconds; try again.');
  return malformed(message);
}

function malformed(why: string): KilnError {
  return new KilnError('MALFORMED_REQUEST', `This is no request that HTTP knows (${why}); see /docs.`);
}

/** On the connection itself, which is over then: what else comes on it could be anything. */
async function writeRaw(socket: Duplex, answer: Response): Promise<void> {
  const { status, headers, body } = await rawAnswer(answer);
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}`);
  const head = [`HTTP/1.1 ${status} ${STATUS_CODES[status]}`, ...lines].join('\r\n');
  socket.on('error', () => {}); // gone, and nobody to tell
  socket.end(`${head}\r\n\r\n${body}`);
}

async function rawAnswer(answer: Response) {
  const body = await answer.text();
  const length = String(Buffer.byteLength(body));
  const headers = { ...Object.fromEntries(answer.headers), 'content-length': length, connection: 'close' };
  return { status: answer.status, headers, body };
}
