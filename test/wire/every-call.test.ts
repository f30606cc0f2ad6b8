/**
 * Every call of the protocol, made for real against a running engine (with strict answers) by each of the five clients'
 * habits in turn: what comes back is what the strictest of them needs, and what is refused is refused as they read it.
 */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { nodeServer } from '../support/apps.ts';
import type { Json } from '../support/client.ts';
import { type Kiln, startKiln } from '../support/kiln.ts';
import { DEPLOYMENTS, type Row, SANDBOXES, TENANT } from './calls.ts';

let kiln: Kiln;
/** May do nothing that the table has. */
let powerless: string;
const known: Record<string, unknown> = {};
before(async () => {
  kiln = await startKiln({ grace: '0' });
  powerless = (await kiln.ask('POST', '/api-keys', { name: 'none', scopes: ['usage:read'] })).key;
  const dir = await nodeServer('an app');
  known.app = (await kiln.publish(dir)).deployment.id;
  await rm(dir, { recursive: true });
});
after(() => kiln.close());

const hex = () => randomUUID().replaceAll('-', '');
const json_type = { 'Content-Type': 'application/json' };
/** The headers that each client sends, with or without a body, on a read or a change. */
const HABITS: Record<string, (o: { body: boolean; changes: boolean }) => Record<string, string>> = {
  typescript: ({ body, changes }) => ({
    ...(body ? json_type : {}),
    ...(changes ? { 'Idempotency-Key': randomUUID() } : {}),
    'X-MIOSA-Tenant': 'ten_somebody',
  }),
  python: ({ body, changes }) => ({
    Accept: 'application/json',
    ...(body ? json_type : {}),
    ...(changes ? { 'Idempotency-Key': hex() } : {}),
  }),
  go: ({ body, changes }) => ({
    'User-Agent': 'miosa-go/0.3.0',
    ...(body ? json_type : {}),
    ...(changes ? { 'Idempotency-Key': hex() } : {}),
  }),
  elixir: ({ body, changes }) => ({
    ...(body ? { 'content-type': 'application/json' } : {}),
    ...(changes ? { 'idempotency-key': hex() } : {}),
  }),
  cli: () => ({ ...json_type, Accept: 'application/json', 'X-MIOSA-Workspace': 'ws_somebody' }),
};

const fill = (text: string) => text.replace(/\{(\w+)\}/g, (_, name) => String(known[name] ?? `{${name}}`));

interface Seen {
  status: number;
  headers: Headers;
  text: string;
  json: Json;
}

async function send(row: Row, headers: Record<string, string>, key: string | null = kiln.key): Promise<Seen> {
  const [method, path] = row.call.split(' ') as [string, string];
  const gone = new AbortController();
  const timer = setTimeout(() => gone.abort(new Error(`${row.call}: no answer within 30 s`)), 30_000);
  const answer = await fetch(`${kiln.api_url}/api/v1${fill(path)}${row.query ? `?${row.query}` : ''}`, {
    method,
    headers: { ...headers, ...(key === null ? {} : { Authorization: `Bearer ${key}` }) },
    ...(row.body === undefined ? {} : { body: fill(JSON.stringify(row.body)) }),
    signal: gone.signal,
  });
  const is_stream = (answer.headers.get('content-type') ?? '').startsWith('text/event-stream');
  const text = is_stream ? await firstFrame(answer) : await answer.text();
  clearTimeout(timer);
  gone.abort();
  const is_json = (answer.headers.get('content-type') ?? '').includes('application/json');
  return { status: answer.status, headers: answer.headers, text, json: is_json ? JSON.parse(text) : null };
}

async function firstFrame(answer: Response): Promise<string> {
  let text = '';
  for await (const chunk of answer.body!.pipeThrough(new TextDecoderStream() as never)) {
    text += chunk;
    if (text.includes('\n\n')) break;
  }
  return text;
}

function checkRefusal(of: string, seen: Seen, status: number, code?: string): void {
  const { json } = seen;
  assert.equal(seen.status, status, `${of}: ${seen.text}`);
  assert.match(json.request_id, /^req_/, of);
  assert.deepEqual(
    [json.code, json.message, json.request_id],
    [json.error.code, json.error.message, json.error.request_id],
  );
  assert.equal(seen.headers.get('x-request-id'), json.request_id, of);
  if (code !== undefined) assert.equal(json.code, code, of);
}

function check(row: Row, of: string, seen: Seen): void {
  const { json } = seen;
  if (row.gives === 'refusal') {
    checkRefusal(of, seen, Number(row.status), 'UNSUPPORTED');
    return;
  }
  const wanted = [row.status ?? 200].flat();
  assert.ok(wanted.includes(seen.status), `${of}: ${seen.status} ${seen.text.slice(0, 500)}`);
  assert.match(seen.headers.get('x-request-id') ?? '', /^req_/, of);
  if (row.gives === 'stream') assert.match(seen.text, /^(: ok|id:|event:|data:)/, of);
  if (row.gives === 'stream' || row.gives === 'bytes') return;
  if (row.gives === 'bare') assert.equal(json.data, undefined, of);
  if (row.gives === 'data') assert.ok(json.data !== null && typeof json.data === 'object', of);
  if (row.gives === 'list') assert.ok(Array.isArray(json.data), of);
  const object = row.gives === 'data' ? json.data : json;
  for (const field of row.fields ?? []) assert.notEqual(object[field], undefined, `${of}: no ${field}`);
}

/** Streams are asked for as such; a build's log answers JSON otherwise. */
function headersOf(row: Row, habit: string): Record<string, string> {
  const changes = !row.call.startsWith('GET');
  const headers = HABITS[habit]!({ body: row.body !== undefined, changes });
  return row.gives === 'stream'
    ? { ...headers, Accept: 'text/event-stream, application/json, */*' }
    : headers;
}

let turn = 0;
async function make(row: Row): Promise<void> {
  const habits = Object.keys(HABITS);
  const is_read = row.call.startsWith('GET') || row.gives === 'refusal';
  checkRefusal(`${row.call} without a key`, await send(row, {}, null), 401, 'invalid_token');
  const weak = await send(row, headersOf(row, 'cli'), powerless);
  checkRefusal(`${row.call} without the scope`, weak, 403, 'insufficient_scope');
  // What changes something is made once, by each client in turn; what reads, by all of them.
  for (const habit of is_read ? habits : [habits[turn++ % habits.length]!]) {
    const headers = headersOf(row, habit);
    const of = `${row.call} as ${habit}`;
    let seen = await send(row, headers);
    for (let tries = 0; row.until && seen.status < 400 && !row.until(seen.json); tries++) {
      assert.ok(tries < 200, `${of}: ${seen.text.slice(0, 500)}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
      seen = await send(row, headers);
    }
    check(row, of, seen);
    for (const [name, read] of Object.entries(row.keep ?? {})) known[name] = read(seen.json);
    const key = headers['Idempotency-Key'] ?? headers['idempotency-key'];
    if (key === undefined || row.gives === 'stream' || row.gives === 'refusal') continue;
    const replay = await send(row, headers);
    if (replay.headers.get('idempotency-replayed') === 'true') assert.equal(replay.text, seen.text, of);
    else assert.ok(UNKEYED.has(row.call.split(' ')[1]!.split('/').at(-1)!), `${of} is not replayed`);
  }
}

/** Calls that change nothing worth a key: a look by POST, and addresses computed anew. */
const UNKEYED = new Set(['stat', 'exports']);

describe('every call of the protocol', () => {
  for (const [name, rows] of Object.entries({
    sandboxes: SANDBOXES,
    deployments: DEPLOYMENTS,
    tenant: TENANT,
  }))
    test(name, async () => {
      for (const row of rows) await make(row);
    });
});
