/** Speaks the HTTP contract the way a client written for it does, and asks the edge like a browser. */
import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import http from 'node:http';

// The tests look at answers as data of the wire; the contract's own tests hold their shapes.
// biome-ignore lint/suspicious/noExplicitAny: see above
export type Json = any;

export interface Answer {
  status: number;
  headers: http.IncomingHttpHeaders;
  body: string;
}

export interface PublishOptions {
  name?: string;
  deployment_id?: string;
  sandbox_id?: string;
  wait?: number;
  key?: string;
  [field: string]: unknown;
}

export class Client {
  readonly api_url: string;
  readonly edge_url: string;
  readonly key: string;

  constructor(api_url: string, edge_url: string, key: string) {
    this.api_url = api_url;
    this.edge_url = edge_url;
    this.key = key;
  }

  async call(
    method: string,
    path: string,
    body?: unknown,
    headers: Record<string, string> = {},
  ): Promise<{ status: number; json: Json; headers: Headers }> {
    const raw = body instanceof Uint8Array;
    const answer = await fetch(`${this.api_url}/api/v1${path}`, {
      method,
      headers: {
        authorization: `Bearer ${this.key}`,
        ...(body === undefined ? {} : { 'content-type': raw ? 'application/x-tar' : 'application/json' }),
        ...headers,
      },
      body: body === undefined ? undefined : raw ? (body as never) : JSON.stringify(body),
    });
    const text = await answer.text();
    return { status: answer.status, headers: answer.headers, json: text === '' ? null : parse(text) };
  }

  /** The answer's data, or an error that shows the whole answer. */
  async ask(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<Json> {
    const { status, json } = await this.call(method, path, body, headers);
    if (status >= 400) throw new Error(`${method} ${path}: ${status} ${JSON.stringify(json)}`);
    return json?.data ?? json;
  }

  async sandboxFrom(dir: string): Promise<string> {
    const sandbox = await this.ask('POST', '/sandboxes', { name: `t-${randomUUID()}` });
    await this.fill(sandbox.id, dir);
    return sandbox.id;
  }

  async fill(sandbox_id: string, dir: string): Promise<void> {
    const tar = execFileSync('tar', ['-C', dir, '-cf', '-', '.'], { maxBuffer: 1 << 30 });
    await this.ask('PUT', `/sandboxes/${sandbox_id}/archive?clear=true`, tar);
  }

  async deployment(name: string): Promise<Json> {
    return this.ask('POST', '/deployments', { name });
  }

  /** Publishes and waits for the end; the version and deployment as they then are. */
  async publish(
    dir: string | null,
    options: PublishOptions = {},
  ): Promise<{ deployment: Json; version: Json; status: number }> {
    const { name, deployment_id, sandbox_id, wait = 120, key, ...body } = options;
    const id = deployment_id ?? (await this.deployment(name ?? `app-${randomUUID().slice(0, 8)}`)).id;
    const source_sandbox_id = sandbox_id ?? (await this.sandboxFrom(dir!));
    const { status, json } = await this.call(
      'POST',
      `/deployments/${id}/publish?wait=${wait}`,
      { source_sandbox_id, ...body },
      key === undefined ? {} : { 'idempotency-key': key },
    );
    if (status >= 400) throw new Error(`publish: ${status} ${JSON.stringify(json)}`);
    return { ...json.data, status };
  }

  version(deployment_id: string, version_id: string): Promise<Json> {
    return this.ask('GET', `/deployments/${deployment_id}/versions/${version_id}`);
  }

  /** Polls until the version is ready, failed or archived. */
  async settled(deployment_id: string, version_id: string, within_ms = 60_000): Promise<Json> {
    const until = Date.now() + within_ms;
    for (;;) {
      const version = await this.version(deployment_id, version_id);
      if (!['created', 'building'].includes(version.state)) return version;
      if (Date.now() > until)
        throw new Error(`still ${version.state} (${version.stage}) after ${within_ms} ms`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  async buildLog(deployment_id: string, build_id: string): Promise<string> {
    const { status, json } = await this.call(
      'GET',
      `/deployments/${deployment_id}/builds/${build_id}/logs`,
      undefined,
      {
        accept: 'application/json',
      },
    );
    if (status !== 200) throw new Error(`build log: ${status} ${JSON.stringify(json)}`);
    return JSON.stringify(json);
  }

  /** What a visitor of the deployment's host gets. */
  get(
    deployment: Json,
    path = '/',
    options: { method?: string; headers?: Record<string, string>; agent?: http.Agent } = {},
  ): Promise<Answer> {
    return visit(this.edge_url, new URL(deployment.public_url).host, path, options);
  }
}

export function visit(
  edge_url: string,
  host: string,
  path: string,
  options: { method?: string; headers?: Record<string, string>; agent?: http.Agent } = {},
): Promise<Answer> {
  const { hostname, port } = new URL(edge_url);
  return new Promise((resolve, reject) => {
    const request = http.request(
      {
        hostname,
        port,
        path,
        method: options.method ?? 'GET',
        agent: options.agent,
        headers: { host, ...options.headers },
      },
      (answer) => {
        const parts: Buffer[] = [];
        answer.on('data', (part: Buffer) => parts.push(part));
        answer.on('error', reject);
        answer.on('end', () =>
          resolve({
            status: answer.statusCode!,
            headers: answer.headers,
            body: Buffer.concat(parts).toString(),
          }),
        );
      },
    );
    request.on('error', reject);
    request.setTimeout(30_000, () => request.destroy(new Error('no answer within 30 s')));
    request.end();
  });
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
