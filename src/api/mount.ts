/**
 * From a route and its handler to an HTTP endpoint, the same way for all: key, scope, path, query, body, then the
 * handler (once per Idempotency-Key), then the answer. Errors go up to the one error responder.
 */
import { randomUUID } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import type { z } from '@hono/zod-openapi';
import { KilnError } from '../domain/errors.ts';
import { audited } from './audit.ts';
import { type Authenticator, needScope } from './auth.ts';
import { checkText, foldAliases, limitOf, parseJson, readBody } from './body.ts';
import type { AnyCall, ApiDeps, Caller, Mounted, Reply } from './call.ts';
import type { Route } from './contract/route.ts';
import { invalid, respondError } from './errors.ts';
import type { EventHub } from './event-hub.ts';
import { fingerprint, keyOf, once } from './idempotency.ts';
import { type Places, takeHeld } from './places.ts';

export interface Server {
  deps: ApiDeps;
  authenticator: Authenticator;
  events: EventHub;
  places: Places;
}

export interface Incoming {
  request: Request;
  request_id: string;
  /** Decoded path parameters. */
  params: Record<string, string>;
  remote_address: string | null;
}

/** Answers one request to `mounted`. Every mutation leaves its line in the audit log, a refused one as well. */
export async function serveRoute(server: Server, mounted: Mounted, incoming: Incoming): Promise<Response> {
  const { deps } = server;
  const caller = await server.authenticator.authenticate(incoming.request.headers.get('authorization'));
  checkIds(incoming.params);
  if (mounted.route.method === 'get') return answerCall(server, mounted, incoming, caller, () => {});
  return audited({ deps, caller, route: mounted.route, ...incoming }, (sawFields) =>
    answerCall(server, mounted, incoming, caller, sawFields),
  );
}

async function answerCall(
  server: Server,
  mounted: Mounted,
  { request, request_id, params, remote_address }: Incoming,
  caller: Caller,
  sawFields: (fields: string[]) => void,
): Promise<Response> {
  const { route } = mounted;
  const { deps } = server;
  if (route.scope) needScope(caller, route.scope);
  const url = new URL(request.url);
  const query = parseQuery(route, url);
  const bytes =
    route.method === 'get' || route.takes === 'raw'
      ? Buffer.alloc(0)
      : await readBody(request, limitOf(route.size, deps.limits));
  const body = route.body ? parseBody(route.body, bytes, request, sawFields) : undefined;
  const call: AnyCall = {
    params,
    query,
    body,
    caller,
    request,
    request_id,
    remote_address,
    signal: request.signal,
    idempotency: null,
    deps,
    events: server.events,
    places: server.places,
  };
  const leave = route.holds ? takeHeld(call) : () => {};
  try {
    return await answerOnce(mounted, call, bytes);
  } finally {
    leave();
  }
}

/** Runs the handler, or with an Idempotency-Key answers what it answered before. */
async function answerOnce(mounted: Mounted, call: AnyCall, bytes: Buffer): Promise<Response> {
  const { route } = mounted;
  const { deps, request, caller } = call;
  const url = new URL(request.url);
  const key = route.idempotent ? keyOf(request) : null;
  if (key === null) return respond(route, await mounted.handler(call), deps);
  const owner = randomUUID(); // the request's own id may be the caller's choice, and the same twice
  const scope = { tenant_id: caller.tenant_id, method: request.method, path: url.pathname, key, owner };
  const answer = await once({
    db: deps.database.db,
    vault: deps.vault,
    scope,
    body_sha256: fingerprint(url, bytes),
    retention_ms: deps.idempotency_retention_ms,
    signal: request.signal,
    execute: (previous) => replayable(mounted, { ...call, idempotency: { scope, previous } }),
    stillTrue: async (subject) => (mounted.still_true ? mounted.still_true(call, subject) : true),
  });
  return new Response(answer.text, {
    status: answer.status,
    headers: {
      'content-type': 'application/json',
      ...(answer.replayed ? { 'idempotency-replayed': 'true' } : {}),
      ...(answer.status === 429 ? { 'retry-after': '1' } : {}),
    },
  });
}

/** Runs the handler to an answer that can be stored: an error of the caller's is one, too. */
async function replayable(mounted: Mounted, call: AnyCall): Promise<{ status: number; text: string }> {
  let response: Response;
  try {
    response = respond(mounted.route, await mounted.handler(call), call.deps);
  } catch (error) {
    response = respondError(error, call.request_id, call.request, call.deps.log);
  }
  return { status: response.status, text: await response.text() };
}

function respond(route: Route, answer: Reply | Response, deps: ApiDeps): Response {
  if (answer instanceof Response) return answer;
  const text = JSON.stringify(answer.body);
  if (deps.strict_answers) checkAnswer(route, answer.status, JSON.parse(text));
  return new Response(text, {
    status: answer.status,
    headers: { 'content-type': 'application/json', ...answer.headers },
  });
}

/** Not only must the answer fit its schema: the schema must know every field of it. */
function checkAnswer(route: Route, status: number, body: unknown): void {
  const schema = route.answers[status]?.schema;
  if (!schema) throw new Error(`${route.id} has no answer ${status}`);
  const parsed = schema.safeParse(body);
  if (!parsed.success) throw new Error(`${route.id} ${status} does not fit: ${parsed.error.message}`);
  if (!isDeepStrictEqual(parsed.data, body))
    throw new Error(`${route.id} ${status} has fields its schema does not know: ${JSON.stringify(body)}`);
}

const ID_CHARS = 4096;

function checkIds(params: Record<string, string>): void {
  for (const [name, value] of Object.entries(params))
    for (let i = 0; i < Math.max(value.length, 1); i++)
      if (
        value === '' ||
        value.length > ID_CHARS ||
        value.charCodeAt(i) < 0x20 ||
        value.charCodeAt(i) === 0x7f
      )
        throw new KilnError('INVALID_ID', `The path segment for \`${name}\` cannot be an id or a name.`);
}

function parseQuery(route: Route, url: URL): unknown {
  const given = Object.fromEntries(url.searchParams);
  for (const [name, value] of Object.entries(given)) checkText(value, name);
  const parsed = route.query.safeParse(given);
  if (parsed.success) return parsed.data;
  for (const issue of parsed.error.issues)
    if (issue.path.length === 1 && given[String(issue.path[0])] === undefined)
      throw new KilnError('MISSING_PARAM', `The query parameter \`${String(issue.path[0])}\` is missing.`);
  throw invalid(parsed.error, 'query');
}

function parseBody(
  schema: z.ZodType,
  bytes: Buffer,
  request: Request,
  sawFields: (fields: string[]) => void,
): unknown {
  const given = parseJson(bytes, request.headers.get('content-type'));
  const known = Object.keys((schema as z.ZodObject).shape ?? {});
  const folded = foldAliases(given, known);
  if (typeof folded === 'object' && folded !== null) sawFields(known.filter((name) => name in folded));
  const parsed = schema.safeParse(folded);
  if (!parsed.success) throw invalid(parsed.error, 'body');
  return parsed.data;
}
