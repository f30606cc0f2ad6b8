/** A whole API over a real embedded database, with two tenants and the fake engine, for tests. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { makeId } from '../../domain/ids.ts';
import type { Scope } from '../../domain/tenant.ts';
import { insertApiKey } from '../../store/api-key.ts';
import { testDatabase } from '../../store/database.fixture.ts';
import type { Database } from '../../store/db.ts';
import { ensureTenant, type NewId } from '../../store/tenant.ts';
import { transact } from '../../store/transact.ts';
import { makeVault } from '../../store/vault.ts';
import { createApi } from '../app.ts';
import { makeKey } from '../auth.ts';
import type { ApiDeps } from '../call.ts';
import type { Resolver } from '../dns.ts';
import { FakeEngine } from './fake-engine.ts';

export const newId: NewId = (prefix) => makeId(prefix, Date.now(), randomBytes(16));

/** Answers are read as plain JSON here: what is asserted is what a client sees. */
// biome-ignore lint/suspicious/noExplicitAny: see above
export type Json = any;

export interface Answered {
  status: number;
  headers: Headers;
  body: Json;
}

export interface Asking {
  body?: unknown;
  key?: string;
  headers?: Record<string, string>;
  /** Sent as it is. */
  raw?: string | Uint8Array<ArrayBuffer>;
}

/** What the test says is in the DNS. */
export class FakeDns implements Resolver {
  readonly records = new Map<string, string[]>();

  async txt(name: string): Promise<string[]> {
    return this.records.get(`TXT ${name}`) ?? [];
  }
  async cname(name: string): Promise<string[]> {
    return this.records.get(`CNAME ${name}`) ?? [];
  }
}

export interface TestApi {
  app: ReturnType<typeof createApi>;
  engine: FakeEngine;
  database: Database;
  deps: ApiDeps;
  dns: FakeDns;
  tenant_id: string;
  /** Key of another tenant. */
  foreign_key: string;
  key: string;
  logged: string[];
  ask(method: string, path: string, o?: Asking): Promise<Answered>;
  makeKey(o: { scopes: Scope[]; project_id?: string; rpm?: number; expires_at?: Date }): Promise<string>;
  close(): Promise<void>;
}

export async function openTestApi(limits: Partial<ApiDeps['limits']> = {}): Promise<TestApi> {
  const dir = await mkdtemp(path.join(os.tmpdir(), 'kiln-api-'));
  const database = await testDatabase();
  const vault = makeVault(randomBytes(32));
  const engine = new FakeEngine({ database, newId, vault, dir });
  const logged: string[] = [];
  const dns = new FakeDns();
  const deps: ApiDeps = {
    engine,
    database,
    vault,
    newId,
    now: () => new Date(),
    limits: {
      body_bytes: 1024 * 1024,
      file_bytes: 2 * 1024 * 1024,
      archive_bytes: 4 * 1024 * 1024,
      archive_files: 1000,
      sandboxes: 1000,
      sandbox_snapshots: 1000,
      deployments: 1000,
      queued_operations: 150,
      ...limits,
    },
    log: (level, message, data) => {
      if (level === 'error') logged.push(`${message} ${JSON.stringify(data)}`);
    },
    idempotency_retention_ms: 24 * 3600 * 1000,
    base_domain: 'kiln.test',
    resolver: dns,
    allow_private_webhooks: false,
    strict_answers: true,
  };
  const app = createApi(deps);
  const tenant = async (slug: string) =>
    (await transact(database.db, (trx) => ensureTenant(trx, newId, { name: slug, slug }))).id;
  const tenant_id = await tenant('mine');
  const other_id = await tenant('other');
  const add = addKey(database);
  const key = await add(tenant_id, { scopes: ['*'] });
  return {
    app,
    engine,
    database,
    deps,
    dns,
    tenant_id,
    key,
    foreign_key: await add(other_id, { scopes: ['*'] }),
    logged,
    ask: asker(app, key),
    makeKey: (o) => add(tenant_id, o),
    close: async () => {
      await database.close();
      await rm(dir, { recursive: true, force: true });
    },
  };
}

function addKey(database: Database) {
  return async (
    tenant_id: string,
    o: { scopes: Scope[]; project_id?: string; rpm?: number; expires_at?: Date },
  ): Promise<string> => {
    const { key, hash, prefix } = makeKey();
    await insertApiKey(database.db, {
      id: newId('key'),
      tenant_id,
      name: 'test',
      key_hash: hash,
      key_prefix: prefix,
      key_type: 'user',
      purpose: null,
      scopes: o.scopes,
      project_id: o.project_id ?? null,
      rate_limit_rpm: o.rpm ?? 1_000_000,
      expires_at: o.expires_at ?? null,
    });
    return key;
  };
}

function asker(app: TestApi['app'], own_key: string) {
  return async (method: string, at: string, o: Asking = {}): Promise<Answered> => {
    const response = await app.request(at.startsWith('/api/') || at === '/mcp' ? at : `/api/v1${at}`, {
      method,
      headers: {
        authorization: `Bearer ${o.key ?? own_key}`,
        ...(o.body === undefined ? {} : { 'content-type': 'application/json' }),
        ...o.headers,
      },
      ...(o.raw !== undefined
        ? { body: o.raw }
        : o.body !== undefined
          ? { body: JSON.stringify(o.body) }
          : {}),
    });
    const text = await response.text();
    const is_json = (response.headers.get('content-type') ?? '').includes('application/json');
    if (is_json && response.status >= 400 && !text.startsWith('{"jsonrpc"'))
      checkError(JSON.parse(text), response);
    return { status: response.status, headers: response.headers, body: is_json ? JSON.parse(text) : text };
  };
}

/** Whatever went wrong, every client must find code, message and request id where it looks for them. */
function checkError(body: Json, response: Response): void {
  assert.equal(body.error.code, body.code);
  assert.equal(body.error.message, body.message);
  assert.ok(body.message.length > 0);
  assert.match(body.request_id, /^req_/);
  assert.equal(body.error.request_id, body.request_id);
  // A replayed answer is the first one, id included.
  if (!response.headers.has('idempotency-replayed'))
    assert.equal(response.headers.get('x-request-id'), body.request_id);
}

/** A sandbox with one file and a deployment, through the API. */
export async function sandboxAndDeployment(api: TestApi): Promise<{ sandbox: Json; deployment: Json }> {
  const sandbox = (await api.ask('POST', '/sandboxes', { body: {} })).body;
  const content = Buffer.from('hello\n').toString('base64');
  await api.ask('POST', `/sandboxes/${sandbox.id}/files`, {
    body: { path: '/workspace/index.html', content },
  });
  const deployment = (await api.ask('POST', '/deployments', { body: { name: 'Shop' } })).body.data;
  return { sandbox, deployment };
}

/** Frames of an event stream, read until `enough` says so or the stream ends. */
export async function readFrames(
  response: Response,
  enough: (frames: { event: string; id: string; data: Json }[]) => boolean = () => false,
): Promise<{ event: string; id: string; data: Json }[]> {
  const frames: { event: string; id: string; data: Json }[] = [];
  const reader = response.body!.getReader();
  const decoder = new TextDecoder();
  let text = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return frames;
    text += decoder.decode(value, { stream: true });
    for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
      const lines = text.slice(0, end).split('\n');
      text = text.slice(end + 2);
      const field = (name: string) =>
        lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2) ?? '';
      if (field('data') !== '')
        frames.push({ event: field('event'), id: field('id'), data: JSON.parse(field('data')) });
    }
    if (enough(frames)) {
      await reader.cancel();
      return frames;
    }
  }
}
