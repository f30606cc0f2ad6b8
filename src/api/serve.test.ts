/** What Node's parser or the adapter refuses before the API sees it is told as every other error is (wire rule 6). */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { after, before, test } from 'node:test';
import { type ServedApi, serveApi } from './serve.ts';
import { type Json, openTestApi, type TestApi } from './testing/api.ts';

let api: TestApi;
let served: ServedApi;
before(async () => {
  api = await openTestApi();
  served = await serveApi(api.app, { host: '127.0.0.1', port: 0 }, api.deps);
});
after(async () => {
  await served.close();
  await api.close();
});

/** Sends bytes as they are and reads what comes until the other side closes. */
async function send(bytes: string): Promise<{ status: number; headers: Headers; body: Json }> {
  const socket = connect(served.port, '127.0.0.1');
  await once(socket, 'connect');
  socket.on('error', () => {});
  socket.write(bytes);
  const answer = await text(socket);
  const [head = '', body = ''] = answer.split('\r\n\r\n');
  const [status_line = '', ...lines] = head.split('\r\n');
  const headers = new Headers(lines.map((line) => line.split(/: (.*)/).slice(0, 2) as [string, string]));
  assert.match(status_line, /^HTTP\/1\.1 \d{3} \w/, JSON.stringify(answer));
  return { status: Number(status_line.split(' ')[1]), headers, body: JSON.parse(body) };
}

const end = 'connection: close\r\n\r\n';
const REFUSED: [name: string, bytes: string, status: number, code: string][] = [
  ['no HTTP', 'garbage\r\n\r\n', 400, 'MALFORMED_REQUEST'],
  ['a TLS hello', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc', 400, 'MALFORMED_REQUEST'],
  ['a host with a space', `GET /health HTTP/1.1\r\nhost: a b\r\n${end}`, 400, 'MALFORMED_REQUEST'],
  ['no host', `GET /health HTTP/1.1\r\n${end}`, 400, 'MALFORMED_REQUEST'],
  ['OPTIONS *', `OPTIONS * HTTP/1.1\r\nhost: a\r\n${end}`, 400, 'MALFORMED_REQUEST'],
  [
    'two lengths',
    `POST /api/v1/sandboxes HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n${end}0\r\n\r\n`,
    400,
    'MALFORMED_REQUEST',
  ],
  [
    'headers that are too large',
    `GET /health HTTP/1.1\r\nhost: a\r\nx: ${'x'.repeat(70_000)}\r\n${end}`,
    431,
    'HEADERS_TOO_LARGE',
  ],
  ['CONNECT', 'CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n', 405, 'METHOD_NOT_ALLOWED'],
];

for (const [name, bytes, status, code] of REFUSED)
  test(`refused with code, message and request id: ${name}`, async () => {
    const answer = await send(bytes);
    assert.equal(answer.status, status);
    assert.equal(answer.headers.get('content-type'), 'application/json');
    const { body } = answer;
    assert.equal(body.code, code);
    assert.equal(body.error.code, code);
    assert.equal(body.error.message, body.message);
    assert.match(body.message, /\w+.*\./);
    assert.match(body.request_id, /^req_/);
    assert.equal(body.error.request_id, body.request_id);
    assert.equal(answer.headers.get('x-request-id'), body.request_id);
  });

test('what is well formed is served, also with an expectation that nobody knows', async () => {
  const answer = await send(`GET /health HTTP/1.1\r\nhost: a\r\nexpect: the-best\r\n${end}`);
  assert.deepEqual([answer.status, answer.body.status], [200, 'ok']);
});
