import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { Client } from './client.ts';
import { CliError } from './exit.ts';
import { errorBody, FakeApi, sendJson } from './fixture.ts';
import { readEvents } from './sse.ts';

let api: FakeApi;
let client: Client;
const interrupt = new AbortController();

beforeEach(async () => {
  api = new FakeApi();
  const api_url = await api.listen();
  client = new Client({ api_url, key: 'msk_test', local: false, data_dir: '/nonexistent' }, interrupt.signal);
});
afterEach(() => api.close());

test('a mutation keeps its Idempotency-Key over retries, and the next one has another', async () => {
  let fails = 2;
  api.intercept = (_, response) => {
    if (fails-- <= 0) return false;
    sendJson(response, 503, errorBody('UNAVAILABLE', 'Starting.'));
    return true;
  };
  await client.post('/deployments', { body: { name: 'a' } });
  await client.post('/deployments', { body: { name: 'b' } });
  const keys = api.seen.map(({ headers }) => headers['idempotency-key']);
  assert.equal(keys.length, 4);
  assert.equal(new Set(keys.slice(0, 3)).size, 1);
  assert.notEqual(keys[2], keys[3]);
  assert.equal(api.seen[0]!.headers.authorization, 'Bearer msk_test');
});

test('a dropped connection is tried again, unless repeating could do harm', async () => {
  let drops = 1;
  api.intercept = (_, response) => {
    if (drops-- <= 0) return false;
    response.destroy();
    return true;
  };
  await client.get('/deployments');
  assert.equal(api.seen.length, 2);
  drops = 1;
  await assert.rejects(client.post('/deployments', { body: { name: 'a' }, repeatable: false }), {
    exit_code: 6,
  });
  assert.equal(api.seen.length, 3);
});

test('an error carries code, message, request id, fields and the next step', async () => {
  api.intercept = (_, response) => {
    const errors = { port: ['must be a number'] };
    sendJson(response, 422, errorBody('VALIDATION_ERROR', 'One field is wrong.', { errors }));
    return true;
  };
  const error = await client.get('/deployments').catch((e) => e);
  assert.ok(error instanceof CliError);
  assert.deepEqual(
    [error.exit_code, error.code, error.message, error.request_id, error.fields],
    [2, 'VALIDATION_ERROR', 'One field is wrong.', 'req_1', { port: ['must be a number'] }],
  );
  api.intercept = (_, response) => {
    sendJson(response, 401, errorBody('invalid_token', 'The key is unknown.'));
    return true;
  };
  await assert.rejects(client.get('/deployments'), { next_step: /--key or KILN_KEY/ });
});

test('another server on the port is told apart from an engine', async () => {
  api.intercept = (_, response) => {
    response.writeHead(404, { 'content-type': 'text/html' }).end('<h1>Not here</h1>');
    return true;
  };
  await assert.rejects(client.get('/deployments'), {
    code: 'HTTP_404',
    message: /not as a Kiln engine does/,
  });
});

test('a list is read page by page', async () => {
  api.intercept = ({ query }, response) => {
    const page = Number(query.get('cursor') ?? 0);
    sendJson(response, 200, { data: [{ id: page }], next_cursor: page < 2 ? String(page + 1) : null });
    return true;
  };
  assert.deepEqual(await Array.fromAsync(client.list('/deployments')), [{ id: 0 }, { id: 1 }, { id: 2 }]);
});

test('frames of a stream survive any cut, comments and CRLF', async () => {
  const text = ': hi\r\n\r\nevent: log_line\r\ndata: {"line":"grün"}\r\n\r\nevent: done\ndata: {}\n\n';
  const bytes = new TextEncoder().encode(text);
  for (const size of [1, 2, 3, 7, 1000]) {
    const body = new ReadableStream<Uint8Array>({
      start(controller) {
        for (let at = 0; at < bytes.length; at += size) controller.enqueue(bytes.slice(at, at + size));
        controller.close();
      },
    });
    assert.deepEqual(
      await Array.fromAsync(readEvents(body)),
      [
        { event: 'log_line', data: { line: 'grün' } },
        { event: 'done', data: {} },
      ],
      `pieces of ${size}`,
    );
  }
});
