/** Sandboxes on a real engine: what commands print, files and events as they happen, snapshots that are published. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, readdir, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import type { Json } from './support/client.ts';
import { tempDir } from './support/folders.ts';
import { type Kiln, startKiln } from './support/kiln.ts';

let kiln: Kiln;
before(async () => {
  kiln = await startKiln({ grace: '0' });
});
after(() => kiln.close());

const write = (id: string, path: string, text: string) =>
  kiln.ask('POST', `/sandboxes/${id}/files`, { path, content: Buffer.from(text).toString('base64') });

/** Frames of a stream as they come; the stream is given up once `enough` says so. */
async function frames(
  path: string,
  enough: (seen: Json[]) => boolean,
  meanwhile: () => Promise<unknown> = async () => {},
  headers: Record<string, string> = {},
): Promise<Json[]> {
  const gone = new AbortController();
  const timer = setTimeout(() => gone.abort(new Error('not enough frames within 20 s')), 20_000);
  const answer = await fetch(`${kiln.api_url}/api/v1${path}`, {
    headers: { authorization: `Bearer ${kiln.key}`, accept: 'text/event-stream', ...headers },
    signal: gone.signal,
  });
  assert.equal(answer.status, 200, path);
  const working = meanwhile();
  const seen: Json[] = [];
  let text = '';
  for await (const chunk of answer.body!.pipeThrough(new TextDecoderStream() as never)) {
    text += chunk;
    const parts = text.split('\n\n');
    text = parts.pop()!;
    for (const part of parts) {
      const data = /^data: (.*)$/m.exec(part)?.[1];
      const id = /^id: (.*)$/m.exec(part)?.[1];
      if (data !== undefined) seen.push({ ...JSON.parse(data), ...(id ? { frame_id: id } : {}) });
    }
    if (enough(seen)) break;
  }
  clearTimeout(timer);
  gone.abort();
  await working;
  return seen;
}

test('what commands print is kept, whole lines of each, secrets hidden, and followed live', async () => {
  const sandbox = await kiln.ask('POST', '/sandboxes', {
    env: { API_TOKEN: 'hush-hush-1234', PLAIN: 'seen' },
  });
  const at = `/sandboxes/${sandbox.id}`;
  assert.deepEqual((await kiln.ask('GET', `${at}/logs`)).lines, []);
  await kiln.ask('POST', `${at}/exec`, { command: 'echo "$API_TOKEN $PLAIN"; echo oops >&2; printf half' });
  await Promise.all(
    ['a', 'b'].map((c) =>
      kiln.ask('POST', `${at}/exec`, {
        command: `for i in 1 2 3; do printf ${c}${c}; sleep 0.05; echo ${c}; done`,
      }),
    ),
  );
  const { lines, logs } = await kiln.ask('GET', `${at}/logs?lines=50`);
  assert.deepEqual([...lines].sort(), [
    '[redacted] seen',
    'aaa',
    'aaa',
    'aaa',
    'bbb',
    'bbb',
    'bbb',
    'half',
    'oops',
  ]);
  assert.equal(logs.split('\n').length, lines.length + 1);
  assert.equal((await kiln.ask('GET', `${at}/logs?lines=2`)).lines.length, 2);
  const seen = await frames(
    `${at}/logs/stream?lines=1`,
    (all) => all.some((frame) => frame.line === 'late'),
    () => kiln.ask('POST', `${at}/exec`, { command: 'echo late' }),
  );
  assert.equal(seen.length, 2);
  assert.deepEqual([seen[1].type, seen[1].stream], ['log_line', 'stdout']);
  const ended = await frames(
    `${at}/logs/stream?lines=1`,
    (all) => all.some(({ type }) => type === 'done'),
    () => kiln.ask('DELETE', at),
  );
  assert.deepEqual(ended.at(-1), { type: 'done', result: { state: 'destroyed' } });
});

test('changes of files arrive as they happen, also below a folder only', async () => {
  const { id } = await kiln.ask('POST', '/sandboxes', {});
  await write(id, 'src/a.js', 'one');
  await write(id, 'b.txt', 'b');
  const watching = (path: string) =>
    frames(
      `/sandboxes/${id}/files/watch${path}`,
      (all) => all.some(({ path, type }) => path === '/workspace/src/end' && type === 'created'),
      async () => {
        await write(id, 'src/a.js', 'changed');
        await kiln.ask('DELETE', `/sandboxes/${id}/files?path=b.txt`);
        await write(id, 'src/end', '');
      },
    );
  const told = (await watching('')).map(({ type, path }) => `${type} ${path}`);
  assert.deepEqual([...told].sort(), [
    'created /workspace/src/end',
    'deleted /workspace/b.txt',
    'modified /workspace/src/a.js',
  ]);
  await kiln.ask('DELETE', `/sandboxes/${id}/files?path=src/end`);
  await write(id, 'b.txt', 'b');
  await write(id, 'src/a.js', 'as before');
  const below = await watching('?path=/workspace/src');
  assert.deepEqual(below.map(({ event, path, size_bytes }) => [event, path, size_bytes]).sort(), [
    ['created', '/workspace/src/end', 0],
    ['modified', '/workspace/src/a.js', 7],
  ]);
});

test('events of one sandbox, from the start and resumed', async () => {
  const { id } = await kiln.ask('POST', '/sandboxes', {});
  await kiln.ask('POST', '/sandboxes', {});
  const { id: snapshot_id } = await kiln.ask('POST', `/sandboxes/${id}/snapshots`, {});
  await kiln.ask('DELETE', `/sandboxes/${id}/snapshots/${snapshot_id}`);
  const at = `/sandboxes/${id}/events`;
  const first = (await frames(`${at}?from=start`, (all) => all.length >= 2)).slice(0, 2);
  assert.deepEqual(
    first.map(({ type }) => type),
    ['sandbox.created', 'sandbox.snapshot_created'],
  );
  const last = { 'last-event-id': first[1].frame_id };
  const rest = await frames(
    at,
    (all) => all.length >= 2,
    () => kiln.ask('DELETE', `/sandboxes/${id}`),
    last,
  );
  assert.deepEqual(
    rest.map(({ type, sandbox_id }) => [type, sandbox_id]),
    [
      ['sandbox.snapshot_deleted', id],
      ['sandbox.destroyed', id],
    ],
  );
});

test('half uploads, exports and forks of an engine that died are gone after its restart', async () => {
  const data_dir = await tempDir('half');
  let own = await startKiln({}, data_dir);
  const { id } = await own.ask('POST', '/sandboxes', {});
  await own.ask('POST', `/sandboxes/${id}/files`, { path: 'kept.txt', content: 'aGk=' });
  await own.close();
  const at = (...parts: string[]) => path.join(data_dir, ...parts);
  await mkdir(at('sandboxes', id, 'upload-0a1b2c'));
  await writeFile(at('sandboxes', id, 'upload-0a1b2c', 'part'), 'half');
  await writeFile(at('sandboxes', id, 'export-0a1b2c.tar'), 'half');
  await mkdir(at('sandboxes', 'sbx_norow', 'workspace'), { recursive: true });
  await writeFile(at('tmp', 'fork-0a1b2c.tar'), 'half');
  own = await startKiln({}, data_dir);
  try {
    assert.deepEqual(await readdir(at('sandboxes')), [id]);
    assert.deepEqual(await readdir(at('sandboxes', id)), ['workspace']);
    assert.deepEqual(await readdir(at('sandboxes', id, 'workspace')), ['kept.txt']);
    assert.deepEqual(await readdir(at('tmp')), []);
  } finally {
    await own.close();
    await rm(data_dir, { recursive: true, force: true });
  }
});

test('a snapshot is published as it was, by a fork that is gone before the build ends', async () => {
  const { id } = await kiln.ask('POST', '/sandboxes', {});
  await write(id, 'index.html', '<h1>then</h1>');
  const { id: snapshot_id } = await kiln.ask('POST', `/sandboxes/${id}/snapshots`, {});
  await write(id, 'index.html', '<h1>now</h1>');
  const fork = await kiln.ask('POST', `/sandboxes/${id}/fork`, { snapshot_id, name: 'release' });
  const { json } = await kiln.call('POST', `/sandboxes/${fork.id}/deploy`, { name: 'pinned' });
  await kiln.ask('DELETE', `/sandboxes/${fork.id}`);
  const { deployment_id, version_id } = json.data;
  assert.equal((await kiln.settled(deployment_id, version_id)).state, 'ready');
  const deployment = await kiln.ask('GET', `/deployments/${deployment_id}`);
  assert.equal((await kiln.get(deployment)).body, '<h1>then</h1>');
});

test('pausing and destroying a sandbox ends what runs in it', async () => {
  for (const [method, end, state] of [
    ['POST', '/pause', 'paused'],
    ['POST', '/stop', 'paused'],
    ['DELETE', '', 'destroyed'],
  ] as const) {
    const { id } = await kiln.ask('POST', '/sandboxes', {});
    const at = `/sandboxes/${id}`;
    let is_over = false;
    // What the command started itself goes as well: it writes on where nobody waits for it.
    const command =
      'while :; do echo x >> beats; sleep 0.05; done & until [ -s beats ]; do sleep 0.02; done; echo started; sleep 600';
    const running = kiln.ask('POST', `${at}/exec`, { command, timeout: 600 }).finally(() => {
      is_over = true;
    });
    await frames(`${at}/logs/stream`, (all) => all.some(({ line }) => line === 'started'));
    await kiln.ask(method, at + end, method === 'POST' ? {} : undefined);
    const ended = await running;
    assert.equal(is_over, true);
    assert.deepEqual([ended.reason, ended.exit_code], ['killed', 137], end);
    const folder = path.join(kiln.data_dir, 'sandboxes', id);
    if (state === 'destroyed') {
      assert.equal(existsSync(folder), false, 'the folder is gone and nobody makes it anew');
      continue;
    }
    assert.equal((await kiln.ask('GET', at)).state, 'paused');
    const { size } = await stat(path.join(folder, 'workspace/beats'));
    await pause(300);
    assert.equal((await stat(path.join(folder, 'workspace/beats'))).size, size, 'nothing writes any more');
    await kiln.ask('POST', `${at}/resume`, {});
    assert.equal((await kiln.ask('POST', `${at}/exec`, { command: 'echo again' })).stdout, 'again\n');
  }
});

test('a command that begins while its sandbox goes does not outlive it', async () => {
  const { id } = await kiln.ask('POST', '/sandboxes', {});
  const body = { command: 'echo x > late; sleep 600', timeout: 600 };
  const execs = Array.from({ length: 5 }, () => kiln.call('POST', `/sandboxes/${id}/exec`, body));
  await kiln.ask('DELETE', `/sandboxes/${id}`);
  for (const answer of await Promise.all(execs))
    assert.ok(answer.status === 409 || answer.json.exit_code === 137, JSON.stringify(answer.json));
  assert.equal(existsSync(path.join(kiln.data_dir, 'sandboxes', id)), false);
});
