/** The API as one Hono app: request ids, the endpoints, the documents, and one way for every error. */
import type { IncomingMessage } from 'node:http';
import { OpenAPIHono } from '@hono/zod-openapi';
import type { Context } from 'hono';
import { KilnError } from '../domain/errors.ts';
import { ping } from '../store/tenant.ts';
import { makeAuthenticator } from './auth.ts';
import type { ApiDeps, Mounted } from './call.ts';
import { paramNames } from './contract/route.ts';
import { docsPage } from './docs-page.ts';
import { respondError } from './errors.ts';
import { makeEventHub } from './event-hub.ts';
import { mountMcp } from './mcp.ts';
import { type Server, serveRoute } from './mount.ts';
import { API_BASE, openApiDocument } from './openapi.ts';
import { makePlaces } from './places.ts';
import { ENDPOINTS } from './routes.ts';

export type { ApiDeps } from './call.ts';

/** `/a/{id}/b/{path*}` as Hono writes it. */
const honoPath = (path: string) => path.replace(/\{(\w+)\*\}/g, ':$1{.+}').replace(/\{(\w+)\}/g, ':$1');

export function createApi(deps: ApiDeps): OpenAPIHono {
  const app = new OpenAPIHono();
  const server: Server = {
    deps,
    authenticator: makeAuthenticator(deps),
    events: makeEventHub(deps.database),
    places: makePlaces(),
  };
  const ids = new WeakMap<Request, string>();
  const idOf = (c: Context) => {
    const known = ids.get(c.req.raw);
    if (known) return known;
    const id = deps.newId('req');
    ids.set(c.req.raw, id);
    return id;
  };
  app.use(async (c, next) => {
    await next();
    c.res.headers.set('x-request-id', idOf(c));
    // Hono answers HEAD by what GET answers, and drops the body unread: a stream would wait for its reader for ever.
    if (c.req.raw.method === 'HEAD') await c.res.body?.cancel().catch(() => {});
  });
  app.onError((error, c) => respondError(error, idOf(c), c.req.raw, deps.log));
  app.notFound((c) => respondError(noSuchRoute(c), idOf(c), c.req.raw, deps.log));

  mountPublic(app, deps);
  mountMcp(app, server.authenticator);
  for (const mounted of ENDPOINTS) mountOne(app, server, mounted, idOf);
  return app;
}

function mountOne(app: OpenAPIHono, server: Server, mounted: Mounted, idOf: (c: Context) => string): void {
  const { route } = mounted;
  const names = paramNames(route.path);
  app.on(route.method.toUpperCase(), API_BASE + honoPath(route.path), (c) => {
    const params = Object.fromEntries(names.map((name) => [name, c.req.param(name) ?? '']));
    const remote_address = addressOf(c);
    return serveRoute(server, mounted, { request: c.req.raw, request_id: idOf(c), params, remote_address });
  });
}

/** Null for calls that come from inside the process. */
function addressOf(c: Context): string | null {
  const incoming = (c.env as { incoming?: IncomingMessage } | undefined)?.incoming;
  return incoming?.socket?.remoteAddress ?? null;
}

/** What needs no key. */
function mountPublic(app: OpenAPIHono, deps: ApiDeps): void {
  let made: string | undefined;
  // Made when somebody asks: it takes 100 ms, and most engines are never asked.
  const document = () => {
    made ??= JSON.stringify(openApiDocument(ENDPOINTS.map((mounted) => mounted.route)));
    return made;
  };
  app.get('/health', async (c) => {
    await ping(deps.database.db).catch((cause) => {
      throw new KilnError('UNAVAILABLE', 'The database does not answer.', { cause });
    });
    return c.json({ status: 'ok' });
  });
  for (const path of ['/openapi.json', `${API_BASE}/openapi.json`])
    app.get(path, () => new Response(document(), { headers: { 'content-type': 'application/json' } }));
  app.get('/docs', (c) => {
    c.header('content-security-policy', "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'");
    return c.html(docsPage(JSON.parse(document())));
  });
}

const PATTERNS = ENDPOINTS.map(({ route }) => ({
  method: route.method.toUpperCase(),
  pattern: new RegExp(`^${API_BASE}${route.path.replace(/\{\w+\*\}/g, '.+').replace(/\{\w+\}/g, '[^/]+')}$`),
}));

function noSuchRoute(c: Context): KilnError {
  const allowed = new Set(
    PATTERNS.filter(({ pattern }) => pattern.test(c.req.path)).map(({ method }) => method),
  );
  if (allowed.size === 0)
    return new KilnError('NOT_FOUND', `There is no ${c.req.method} ${c.req.path.slice(0, 200)}; see /docs.`);
  const allow = [...allowed].sort().join(', ');
  return new KilnError(
    'METHOD_NOT_ALLOWED',
    `${c.req.method} is not a method of this path; it takes ${allow}.`,
    {
      details: { allow },
    },
  );
}
