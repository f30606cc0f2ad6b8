/** Answers that stay open: nobody reads them, too many of them, and that each gives back what it took. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdirSync, readlinkSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { HELD, STREAMS, WATCHERS } from './places.ts';
import { openTestApi, sandboxAndDeployment, type TestApi } from './testing/api.ts';
import { publishing } from './testing/publishing.ts';

let api: TestApi;
let sandbox: { id: string };
let deployment: { id: string };
before(async () => {
  api = await openTestApi();
  ({ sandbox, deployment } = await sandboxAndDeployment(api));
});
after(() => api.close());

const open = async (at: string, o: RequestInit & { key?: string } = {}): Promise<Response> =>
  api.app.request(`/api/v1${at}`, { ...o, headers: { authorization: `Bearer ${o.key ?? api.key}` } });

/** Opens streams until all places are taken and counts them; lets go of them. */
async function countFree(at: string, key = api.key): Promise<number> {
  const answers: Response[] = [];
  for (;;) {
    const answer = await open(at, { key });
    if (answer.status !== 200) {
      assert.equal(answer.status, 429, await answer.text());
      break;
    }
    answers.push(answer);
  }
  await Promise.all(answers.map((answer) => answer.body!.cancel()));
  return answers.length;
}

/** A stream gives its place back when its writer has noticed, a moment after its reader went. */
async function untilFree(at: string, want: number, key = api.key): Promise<void> {
  for (let tries = 0; ; tries++, await pause(20)) {
    const free = await countFree(at, key);
    if (free === want) return;
    assert.ok(tries < 1000, `${free} places of ${want} are free`);
  }
}

describe('HEAD', () => {
  test('of a stream takes no place: watches, logs and events are there for everybody afterwards', async () => {
    const watch = `/sandboxes/${sandbox.id}/files/watch`;
    for (const at of [watch, `/sandboxes/${sandbox.id}/logs/stream`, '/events/stream'])
      for (let n = 0; n < STREAMS + 10; n++) {
        const answer = await open(at, { method: 'HEAD' });
        assert.match(answer.headers.get('content-type') ?? '', /^text\/event-stream/, `${at} ${n}`);
        assert.equal(await answer.text(), '');
      }
    await untilFree(watch, WATCHERS.tenant);
    await untilFree('/events/stream', STREAMS);
  });

  const skip = process.platform !== 'linux' && 'open files are counted in /proc';
  test('of a download leaves no file open', { skip }, async () => {
    const openFiles = () =>
      readdirSync('/proc/self/fd').filter((fd) => {
        try {
          return readlinkSync(`/proc/self/fd/${fd}`).includes(sandbox.id);
        } catch {
          return false;
        }
      }).length;
    // More than what is read ahead.
    const content = randomBytes(1024 * 1024).toString('base64');
    await api.ask('POST', `/sandboxes/${sandbox.id}/files`, { body: { path: 'large', content } });
    for (const query of ['path=large', 'path=/workspace', 'paths[]=large'])
      for (let n = 0; n < 20; n++) {
        const at = `/sandboxes/${sandbox.id}/exports/download?${query}`;
        const answer = await open(at, { method: 'HEAD' });
        assert.match(answer.headers.get('content-disposition') ?? '', /^attachment/);
      }
    for (let tries = 0; openFiles() > 0; tries++) {
      assert.ok(tries < 3000, `${openFiles()} files are still open`);
      await pause(10);
    }
  });
});

describe('places', () => {
  test('a key has so many streams; others have theirs, and what is closed is free again', async () => {
    const key = await api.makeKey({ scopes: ['*'] });
    const streams: Response[] = [];
    for (let n = 0; n < STREAMS; n++) streams.push(await open('/events/stream', { key }));
    const refused = await api.ask('GET', '/events/stream', { key });
    assert.equal(refused.status, 429);
    assert.equal(refused.body.code, 'rate_limit_exceeded');
    assert.match(refused.body.message, /128 event streams open.*Close one/);
    assert.equal(refused.headers.get('retry-after'), String(refused.body.retry_after));
    const other = await open('/events/stream');
    assert.equal(other.status, 200);
    await other.body!.cancel();
    await Promise.all(streams.map((stream) => stream.body!.cancel()));
    await untilFree('/events/stream', STREAMS, key);
  });

  test('a reader that goes without having read gives its place back', async () => {
    const key = await api.makeKey({ scopes: ['*'] });
    const leaving = new AbortController();
    for (let n = 0; n < STREAMS; n++) await open('/events/stream', { key, signal: leaving.signal });
    assert.equal(await countFree('/events/stream', key), 0);
    leaving.abort();
    await untilFree('/events/stream', STREAMS, key);
  });

  test('watching files is shared out among tenants', async () => {
    const at = `/sandboxes/${sandbox.id}/files/watch`;
    const watching: Response[] = [];
    for (let n = 0; n < WATCHERS.tenant; n++) watching.push(await open(at));
    assert.equal((await api.ask('GET', at)).status, 429);
    const theirs = await api.ask('POST', '/sandboxes', { body: {}, key: api.foreign_key });
    const other = await open(`/sandboxes/${theirs.body.id}/files/watch`, { key: api.foreign_key });
    assert.equal(other.status, 200);
    await Promise.all([...watching, other].map((answer) => answer.body!.cancel()));
    await untilFree(at, WATCHERS.tenant);
  });

  test('a key has so many answers held; what would be one more is refused before anything happens', async () => {
    const { publish } = publishing(api, sandbox.id);
    const { operation_id, version_id } = (await publish(deployment.id)).body.data;
    const wait = api.engine.waitForOperation.bind(api.engine);
    const { promise: released, resolve: release } = Promise.withResolvers<void>();
    let waiting = 0;
    api.engine.waitForOperation = async (id) => {
      waiting++;
      await released;
      return wait(id, 0);
    };
    const held = Array.from({ length: HELD }, () => api.ask('GET', `/operations/${operation_id}?wait=300`));
    while (waiting < HELD) await pause(5);
    const calls = api.engine.calls.length;
    for (const refused of [
      await api.ask('GET', `/operations/${operation_id}?wait=1`),
      await publish(deployment.id),
      await api.ask('POST', `/sandboxes/${sandbox.id}/exec`, { body: { command: 'true' } }),
    ]) {
      assert.equal(refused.status, 429);
      assert.match(refused.body.message, /256 calls of this key wait/);
    }
    assert.equal(api.engine.calls.length, calls);
    release();
    for (const answer of await Promise.all(held)) assert.equal(answer.status, 200);
    api.engine.waitForOperation = wait;
    await api.engine.finish(version_id);
    assert.equal((await api.ask('GET', `/operations/${operation_id}?wait=300`)).status, 200);
  });
});
