/** A registry in memory that breaks when told to, and remembers what it was asked. */
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';
import { sha256 } from './layers.fixtures.ts';

export interface Asked {
  method: string;
  path: string;
  authorization: string | undefined;
  range: string | undefined;
}

export interface FakeRegistry extends AsyncDisposable {
  host: string;
  asked: Asked[];
  blobs: Map<string, Buffer>;
  manifests: Map<string, { bytes: Buffer; type: string }>;
  /** Of the next requests that match, one each. Returns true when it has answered. */
  faults: {
    match: RegExp;
    act: (request: http.IncomingMessage, response: http.ServerResponse) => boolean | Promise<boolean>;
  }[];
}

export interface FakeOptions {
  auth?: { kind: 'basic' | 'bearer'; username?: string; password?: string };
  /** Blobs are answered by a redirect to this origin. */
  redirect_blobs?: string;
  /** Answers to repository `from` for mounts. */
  mountable?: string;
  min_chunk?: number;
}

export async function fakeRegistry(o: FakeOptions = {}): Promise<FakeRegistry> {
  const asked: Asked[] = [];
  const faults: FakeRegistry['faults'] = [];
  const blobs: FakeRegistry['blobs'] = new Map();
  const manifests: FakeRegistry['manifests'] = new Map();
  const uploads = new Map<string, Buffer>();
  const state = { o, asked, blobs, manifests, uploads, host: '' };
  const server = http.createServer(async (request, response) => {
    const { method, url, headers } = request;
    asked.push({ method: method!, path: url!, authorization: headers.authorization, range: headers.range });
    const at = faults.findIndex(({ match }) => match.test(`${method} ${url}`));
    try {
      const [fault] = at < 0 ? [] : faults.splice(at, 1);
      if (fault && (await fault.act(request, response))) return;
      await answer(state, request, response);
    } catch {
      response.destroy();
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  state.host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    ...{ host: state.host, asked, faults, blobs, manifests },
    [Symbol.asyncDispose]: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

type State = Pick<FakeRegistry, 'blobs' | 'manifests' | 'asked' | 'host'> & {
  o: FakeOptions;
  uploads: Map<string, Buffer>;
};

async function answer(
  state: State,
  request: http.IncomingMessage,
  response: http.ServerResponse,
): Promise<void> {
  const url = new URL(request.url!, `http://${state.host}`);
  const say = (status: number, headers: http.OutgoingHttpHeaders = {}, body: Buffer | string = '') => {
    response.writeHead(status, { 'content-length': Buffer.byteLength(body), ...headers });
    response.end(request.method === 'HEAD' ? undefined : body);
  };
  if (url.pathname === '/token') {
    const { username, password } = state.o.auth ?? {};
    const wanted = username === undefined ? undefined : `Basic ${btoa(`${username}:${password}`)}`;
    if (request.headers.authorization !== wanted) return say(401);
    return say(
      200,
      {},
      JSON.stringify({ token: `T(${url.searchParams.getAll('scope').join('~').replaceAll(' ', '~')})` }),
    );
  }
  if (!isLetIn(state, request)) {
    await buffer(request);
    const challenge =
      state.o.auth!.kind === 'basic'
        ? 'Basic realm="x"'
        : `Bearer realm="http://${state.host}/token",service="fake, here",scope="ignored"`;
    return say(401, { 'www-authenticate': challenge });
  }
  const [, name, kind, rest = ''] = /^\/v2\/(.+?)\/(manifests|blobs)\/(.*)$/.exec(url.pathname) ?? [];
  if (kind === 'manifests') return manifest(state, request, rest, say);
  if (kind === 'blobs' && rest.startsWith('uploads/')) return upload(state, request, url, name!, rest, say);
  const bytes = state.blobs.get(rest);
  if (!bytes)
    return say(404, {}, JSON.stringify({ errors: [{ code: 'BLOB_UNKNOWN', message: 'not\nhere' }] }));
  if (state.o.redirect_blobs && request.method === 'GET')
    return say(307, { location: `${state.o.redirect_blobs}${url.pathname}` });
  const start = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
  if (start === 0) return say(200, { 'content-length': bytes.length }, bytes);
  say(206, { 'content-range': `bytes ${start}-${bytes.length - 1}/${bytes.length}` }, bytes.subarray(start));
}

type Say = (status: number, headers?: http.OutgoingHttpHeaders, body?: Buffer | string) => void;

function isLetIn({ o }: State, { headers, method }: http.IncomingMessage): boolean {
  if (!o.auth) return true;
  if (o.auth.kind === 'basic')
    return headers.authorization === `Basic ${btoa(`${o.auth.username}:${o.auth.password}`)}`;
  const scope = /^Bearer T\((.*)\)$/.exec(headers.authorization ?? '')?.[1];
  return !!scope?.includes(method === 'GET' ? 'pull' : 'push');
}

async function manifest(state: State, request: http.IncomingMessage, name: string, say: Say): Promise<void> {
  if (request.method === 'PUT') {
    const bytes = await buffer(request);
    const stored = { bytes, type: request.headers['content-type']! };
    state.manifests.set(name, stored).set(sha256(bytes), stored);
    return say(201, { 'docker-content-digest': sha256(bytes) });
  }
  const found = state.manifests.get(name);
  if (!found)
    return say(404, {}, JSON.stringify({ errors: [{ code: 'MANIFEST_UNKNOWN', message: 'no such tag' }] }));
  say(200, { 'content-type': found.type }, found.bytes);
}

async function upload(
  state: State,
  request: http.IncomingMessage,
  url: URL,
  name: string,
  rest: string,
  say: Say,
): Promise<void> {
  const id = rest.slice('uploads/'.length);
  const location = (of: string) => `/v2/${name}/blobs/uploads/${of}?_state=a%2Bb%3D`;
  if (request.method === 'POST') {
    const mount = url.searchParams.get('mount');
    if (mount && state.blobs.has(mount) && url.searchParams.get('from') === state.o.mountable)
      return say(201);
    const made = `u${state.uploads.size}`;
    state.uploads.set(made, Buffer.alloc(0));
    const min = state.o.min_chunk ? { 'oci-chunk-min-length': state.o.min_chunk } : {};
    return say(202, { location: location(made), ...min });
  }
  const before = state.uploads.get(id);
  if (!before || url.searchParams.get('_state') !== 'a+b=') return say(404);
  const range = () =>
    state.uploads.get(id)!.length === 0 ? '0-0' : `0-${state.uploads.get(id)!.length - 1}`;
  if (request.method === 'GET') return say(204, { location: location(id), range: range() });
  if (request.method === 'PATCH') {
    const start = Number(request.headers['content-range']?.split('-')[0]);
    if (start !== before.length) return say(416);
  }
  state.uploads.set(id, Buffer.concat([before, await buffer(request)]));
  if (request.method === 'PATCH') return say(202, { location: location(id), range: range() });
  const whole = state.uploads.get(id)!;
  if (sha256(whole) !== url.searchParams.get('digest'))
    return say(400, {}, JSON.stringify({ errors: [{ code: 'DIGEST_INVALID', message: 'other' }] }));
  state.blobs.set(sha256(whole), whole);
  say(201);
}
