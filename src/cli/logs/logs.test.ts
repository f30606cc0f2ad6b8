import assert from 'node:assert/strict';
import type http from 'node:http';
import { afterEach, beforeEach, test } from 'node:test';
import { FakeApi, run } from '../fixture.ts';

let api: FakeApi;
let env: Record<string, string>;
beforeEach(async () => {
  api = new FakeApi();
  env = { KILN_API: await api.listen(), KILN_KEY: 'msk_test' };
  api.addDeployment('shop', { active_version_id: 'ver_shop1' });
  api.addVersion('dep_shop', 1);
});
afterEach(() => api.close());

const LINE = 'event: log_line\ndata: {"line":"up"}\n\n';
/** The log is this stream, until `end` ends it. */
function streaming(text: string, end: (response: http.ServerResponse) => void): void {
  api.intercept = ({ path }, response) => {
    if (!path.endsWith('/logs')) return false;
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write(text, () => end(response));
    return true;
  };
}
const follow = (...more: string[]) => run(['logs', 'shop', '-f', ...more], { env });

test('following says what the engine says of a stream that failed, and ends with 1', async () => {
  const data = { type: 'error', message: 'The log of \u001b[2Jthe build is gone.' };
  streaming(`${LINE}event: error\ndata: ${JSON.stringify(data)}\n\n`, (response) => response.end());
  const { code, stdout, stderr } = await follow();
  assert.equal(code, 1);
  assert.equal(stdout, 'up\n');
  assert.match(stderr, /error: The log of the build is gone\./);
  assert.match(stderr, /kiln logs/);
  const { events } = await follow('--json');
  assert.equal((events.at(-1)!.error as { code: string }).code, 'STREAM_FAILED');
});

test('an engine that goes away meanwhile is not a fault of the command: it ends with 6', async () => {
  streaming(LINE, (response) => response.destroy());
  const broken = await follow();
  assert.deepEqual([broken.code, broken.stdout], [6, 'up\n']);
  assert.match(broken.stderr, /error: The engine at http.* went away/);
  assert.doesNotMatch(broken.stderr, /fault of Kiln|TypeError/);
  // One that stops in order ends its streams, but not with their last word.
  streaming(LINE, (response) => response.end());
  const ended = await follow();
  assert.equal(ended.code, 6);
  assert.match(ended.stderr, /ended before the log did/);
});
