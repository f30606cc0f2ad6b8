import type { AddressInfo } from 'node:net';
import { serve } from '@hono/node-server';
import type { OpenAPIHono } from '@hono/zod-openapi';

/** What is still running this long after `close` loses its connection (streams have no end of their own). */
const CLOSE_GRACE_MS = 1000;

/** A path of 4,096 characters, percent-encoded, must fit into the request line. */
const serverOptions = { maxHeaderSize: 64 * 1024 };

export interface ServedApi {
  url: string;
  port: number;
  /** Takes no new requests; resolves when the last connection is gone. */
  close(): Promise<void>;
}

/** Listens; port 0 takes a free one. Rejects when the address cannot be had (EADDRINUSE, EACCES). */
export async function serveApi(app: OpenAPIHono, at: { host: string; port: number }): Promise<ServedApi> {
  const { promise, resolve, reject } = Promise.withResolvers<AddressInfo>();
  const server = serve({ fetch: app.fetch, hostname: at.host, port: at.port, serverOptions }, resolve);
  server.on('error', reject);
  const { port } = await promise;
  server.off('error', reject);
  // Uploads and held answers may take minutes; headers may not.
  if ('requestTimeout' in server) Object.assign(server, { requestTimeout: 0, headersTimeout: 30_000 });
  const host = at.host.includes(':') ? `[${at.host}]` : at.host;
  return {
    url: `http://${host}:${port}`,
    port,
    close: () =>
      new Promise((done) => {
        server.close(() => done());
        if (!('closeAllConnections' in server)) return;
        server.closeIdleConnections();
        setTimeout(() => server.closeAllConnections(), CLOSE_GRACE_MS).unref();
      }),
  };
}
