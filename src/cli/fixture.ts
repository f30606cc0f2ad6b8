/** For tests: a small API server with the routes the CLI uses, and the CLI run in this process against it. */
import { createHash } from 'node:crypto';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import tar from 'tar-stream';
import { failure as makeFailure } from '../domain/failure.ts';
import type { StartServer } from './cli.ts';
import { runCli } from './run.ts';

export interface Seen {
  method: string;
  path: string;
  query: URLSearchParams;
  headers: http.IncomingHttpHeaders;
  // biome-ignore lint/suspicious/noExplicitAny: whatever a test sends
  body: any;
}

type Row = Record<string, unknown> & { id: string };

/** How the next publish, retry or switch goes: the stages it passes, one per poll, and how it ends. */
export interface Script {
  stages: string[];
  end: Record<string, unknown>;
  version_end: Record<string, unknown>;
  log: string[];
  /** Lines of the engine's own, after the others. */
  notes?: string[];
}

export const SUCCESS: Script = {
  stages: ['queued', 'build', 'health'],
  end: { state: 'succeeded', promoted: true },
  version_end: {
    state: 'ready',
    stage_times: { snapshot: 5, plan: 10, build: 1200, release: 30, health: 2000, promotion: 8 },
  },
  log: ['$ npm ci', 'added 1 package'],
};

export function failing(of: Parameters<typeof makeFailure>[0], state = 'failed'): Script {
  const failure = makeFailure(of);
  return {
    ...SUCCESS,
    stages: ['plan', of.stage],
    end: { state, promoted: false, failure },
    version_end: { state: 'failed', failure, stage_times: { snapshot: 5, plan: 10 } },
  };
}

const NOW = '2026-01-02T03:04:05.678Z';

export class FakeApi {
  readonly seen: Seen[] = [];
  readonly sandboxes = new Map<string, Row & { name: string; files: Map<string, string> }>();
  readonly deployments = new Map<string, Row & { slug: string }>();
  readonly versions = new Map<string, Row & { version_number: number }>();
  readonly operations = new Map<string, Row & { polls: number; script: Script }>();
  /** Answers before any route; return true when answered. */
  intercept: ((request: Seen, response: http.ServerResponse) => boolean) | null = null;
  script = SUCCESS;
  /** Also asked for by `sync`, whatever the manifest says. */
  greedy: string[] = [];
  readonly #server = http.createServer((request, response) => void this.#answer(request, response));

  async listen(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  calls(): string[] {
    return this.seen.map(({ method, path }) => `${method} ${path}`);
  }

  addDeployment(slug: string, more: Record<string, unknown> = {}): Row & { slug: string } {
    const row = {
      id: `dep_${slug}`,
      slug,
      name: slug,
      state: 'running',
      public_url: `http://${slug}.default.localhost:7080`,
      active_version_id: null,
      failure: null,
      desired_replicas: 1,
      settings: {},
      metadata: {},
      updated_at: NOW,
      ...more,
    };
    this.deployments.set(row.id, row);
    return row;
  }

  addVersion(deployment_id: string, version_number: number, more: Record<string, unknown> = {}) {
    const row = {
      id: `ver_${deployment_id.slice(4)}${version_number}`,
      deployment_id,
      version_number,
      state: 'ready',
      kind: 'dynamic',
      build_id: `bld_${version_number}`,
      source_sha256: 'abc',
      source_files: 1,
      source_size_bytes: 2048,
      stage_times: {},
      stage: null,
      plan: null,
      failure: null,
      superseded: false,
      reused_release: false,
      created_at: NOW,
      promoted_at: null,
      ...more,
    };
    this.versions.set(row.id, row);
    return row;
  }

  async #answer(incoming: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const url = new URL(incoming.url!, 'http://x');
    const pieces = await Array.fromAsync(incoming).catch(() => []);
    const bytes = Buffer.concat(pieces);
    const is_json = incoming.headers['content-type'] === 'application/json';
    const request: Seen = {
      method: incoming.method!,
      path: url.pathname.replace(/^\/api\/v1/, ''),
      query: url.searchParams,
      headers: incoming.headers,
      body: is_json ? JSON.parse(bytes.toString()) : bytes,
    };
    this.seen.push(request);
    if (this.intercept?.(request, response)) return;
    const answer = await this.#route(request);
    if (typeof answer === 'string') {
      response.writeHead(200, { 'content-type': 'text/event-stream' }).end(answer);
      return;
    }
    sendJson(response, answer === null ? 404 : 200, answer ?? errorBody('NOT_FOUND', 'No such thing.'));
  }

  async #route(request: Seen): Promise<object | string | null> {
    const [noun, id = '', sub = '', sub_id = '', verb = ''] = request.path
      .slice(1)
      .split('/')
      .map(decodeURIComponent);
    const post = request.method === 'POST';
    if (noun === 'sandboxes') return this.#sandboxRoute(request, id, sub);
    if (noun === 'operations') return this.#operationRoute(id, sub === 'cancel');
    if (noun === 'versions') return this.versions.has(id) ? { data: this.versions.get(id) } : null;
    if (noun !== 'deployments') return null;
    if (id === '' && post) return { data: this.addDeployment(request.body.name.toLowerCase(), request.body) };
    if (id === '') return { data: [...this.deployments.values()], next_cursor: null };
    if (id === 'by-name') {
      const found = [...this.deployments.values()].find((one) => one.slug === sub);
      return found ? { data: found } : null;
    }
    const deployment = this.deployments.get(id);
    if (!deployment) return null;
    const versions = [...this.versions.values()].filter((one) => one.deployment_id === id).reverse();
    if (sub === '' && request.method === 'DELETE')
      return this.deployments.delete(id) ? { id, deleted: true } : null;
    if (sub === '') return { data: deployment };
    if (sub === 'publish') return this.#publish(deployment, request);
    if (sub === 'rollback' || verb === 'promote')
      return this.#switch(
        deployment,
        sub === 'rollback' ? (request.body.version_id ?? versions[1]!.id) : sub_id,
      );
    if (sub === 'versions' && verb === 'retry') return this.#publish(deployment, request);
    if (sub === 'versions' && verb === 'cancel') return this.#operationRoute(`op_${sub_id}`, true);
    if (sub === 'versions' && sub_id !== '') {
      const version = versions.find((one) => one.id === sub_id);
      return version ? { data: version } : null;
    }
    if (sub === 'versions') return { data: versions, next_cursor: null };
    if (sub === 'scale')
      return { data: Object.assign(deployment, { desired_replicas: request.body.replicas }) };
    if (sub === 'runtime-instances') return { data: [] };
    if (sub === 'env') return { data: [] };
    if (sub === 'builds' || sub === 'logs') return this.#log(request);
    return null;
  }

  async #sandboxRoute(request: Seen, id: string, sub: string): Promise<object | null> {
    if (id === '') {
      const row = {
        id: `sbx_${this.sandboxes.size + 1}`,
        state: 'running',
        metadata: {},
        ...request.body,
        files: new Map(),
      };
      this.sandboxes.set(row.id, row);
      return row;
    }
    if (id === 'by-name') return [...this.sandboxes.values()].find((one) => one.name === sub) ?? null;
    const sandbox = this.sandboxes.get(id);
    if (!sandbox) return null;
    if (request.method === 'PATCH') return Object.assign(sandbox, request.body);
    if (sub === 'archive') {
      for (const [name, digest] of await untar(request.body)) sandbox.files.set(name, digest);
      return { files: 0, bytes: 0, sha256: '' };
    }
    if (sub !== 'sync') return null;
    const manifest = request.body.manifest as { path: string; type: string; sha256?: string }[];
    const wanted = new Set(manifest.map((entry) => entry.path));
    for (const name of sandbox.files.keys()) if (!wanted.has(name)) sandbox.files.delete(name);
    const missing = manifest.filter(
      (one) => one.type === 'file' && sandbox.files.get(one.path) !== one.sha256,
    );
    return { missing: [...missing.map((one) => one.path), ...this.greedy], deleted: 0 };
  }

  #publish(deployment: Row, request: Seen): object {
    const version = this.addVersion(deployment.id, this.versions.size + 1, { state: 'created' });
    const operation = this.#begin('publish', deployment, version);
    const promote = request.body.promote !== false;
    if (!promote)
      Object.assign(operation, { script: { ...this.script, end: { ...this.script.end, promoted: false } } });
    return { data: { deployment, version, operation_id: operation.id, secrets_left_out: [] } };
  }

  #switch(deployment: Row, version_id: string): object {
    const version = this.versions.get(version_id)!;
    const pending = version.pending === true;
    const operation = pending ? this.#begin('rollback', deployment, version) : { id: 'op_done' };
    if (!pending) deployment.active_version_id = version.id;
    const changes = [{ what: 'env', name: 'TOKEN', from: null, to: 'set' }];
    return { data: { ...deployment, operation_id: operation.id, version_id: version.id, pending, changes } };
  }

  #begin(kind: string, deployment: Row, version: Row): Row {
    const row = {
      id: `op_${version.id}`,
      kind,
      deployment_id: deployment.id,
      version_id: version.id,
      state: 'running',
      stage: 'queued',
      attempt: 1,
      promoted: null,
      superseded: false,
      failure: null,
      polls: 0,
      script: this.script,
    };
    this.operations.set(row.id, row);
    return row;
  }

  #operationRoute(id: string, cancel: boolean): object | null {
    const operation = this.operations.get(id);
    if (!operation) return null;
    const stage = operation.script.stages[operation.polls++];
    if (cancel) Object.assign(operation, { state: 'cancelled' });
    else if (stage !== undefined) Object.assign(operation, { stage });
    else {
      Object.assign(operation, operation.script.end);
      const version = this.versions.get(operation.version_id as string)!;
      Object.assign(version, operation.script.version_end);
      if (operation.promoted)
        this.deployments.get(operation.deployment_id as string)!.active_version_id = version.id;
    }
    return { data: operation };
  }

  #log(request: Seen): object | string {
    const line = (stream: string) => (text: string) => ({ ts: NOW, stream, line: text, source: 'build' });
    const lines = [...this.script.log.map(line('stdout')), ...(this.script.notes ?? []).map(line('kiln'))];
    if (!request.headers.accept?.includes('text/event-stream')) return { data: { lines } };
    const frames = lines.map((line) => `event: log_line\ndata: ${JSON.stringify(line)}\n\n`).join('');
    return `: heartbeat\n\n${frames}event: done\ndata: {"result":{"state":"succeeded"}}\n\n`;
  }
}

export function sendJson(response: http.ServerResponse, status: number, body: object): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}

export function errorBody(code: string, message: string, more: object = {}): object {
  const request_id = 'req_1';
  return { error: { code, message, request_id }, code, message, request_id, ...more };
}

async function untar(bytes: Buffer): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  const extract = tar.extract();
  Readable.from([bytes]).pipe(extract);
  for await (const entry of extract) {
    const content = Buffer.concat(await Array.fromAsync(entry as AsyncIterable<Buffer>));
    found.set(entry.header.name, createHash('sha256').update(content).digest('hex'));
  }
  return found;
}

export interface Ran {
  code: number;
  stdout: string;
  stderr: string;
  /** stdout as JSON lines. */
  events: Record<string, unknown>[];
}

export interface RunOptions {
  env?: Record<string, string | undefined>;
  cwd?: string;
  stdin?: string;
  interrupted?: AbortSignal;
  startServer?: StartServer;
  /** Called with each piece written. */
  on_write?: (text: string) => void;
}

/** The CLI in this process. */
export async function run(argv: string[], o: RunOptions = {}): Promise<Ran> {
  const out = { stdout: '', stderr: '' };
  const stream = (name: 'stdout' | 'stderr') => ({
    write: (text: string) => {
      out[name] += text;
      o.on_write?.(text);
    },
  });
  const code = await runCli({
    argv,
    env: o.env ?? {},
    cwd: o.cwd ?? '/',
    stdin: Readable.from(o.stdin === undefined ? [] : [Buffer.from(o.stdin)]),
    stdout: stream('stdout'),
    stderr: stream('stderr'),
    interrupted: o.interrupted ?? new AbortController().signal,
    startServer: o.startServer ?? (() => Promise.reject(new Error('no server in this test'))),
  });
  return {
    code,
    ...out,
    get events() {
      return out.stdout
        .split('\n')
        .filter((line) => line.startsWith('{"'))
        .map((line) => JSON.parse(line));
    },
  };
}
