import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { symlink } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import tar from 'tar-stream';
import { openTestApi, readFrames, type TestApi } from './testing/api.ts';

let api: TestApi;
let id: string;
before(async () => {
  api = await openTestApi();
  id = (await api.ask('POST', '/sandboxes', { body: {} })).body.id;
});
after(() => api.close());

const base64 = (text: string | Buffer) => Buffer.from(text).toString('base64');
const write = (at: string, text: string) =>
  api.ask('POST', `/sandboxes/${id}/files`, { body: { path: at, content: base64(text) } });
const text = async (at: string) =>
  (await api.ask('GET', `/sandboxes/${id}/files/read?path=${at}`)).body.content;

async function tarOf(files: Record<string, string>): Promise<Uint8Array<ArrayBuffer>> {
  const pack = tar.pack();
  for (const [name, content] of Object.entries(files)) pack.entry({ name }, content);
  pack.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of pack) chunks.push(chunk as Buffer);
  return new Uint8Array(Buffer.concat(chunks));
}

describe('files', () => {
  test('written, listed, described, read in all the ways clients read, removed', async () => {
    const written = await write('/workspace/src/a b.txt', 'hällo');
    assert.equal(written.status, 201);
    assert.deepEqual(written.body, { path: '/workspace/src/a b.txt', size: 6, size_bytes: 6 });
    for (const route of ['/files', '/files/list']) {
      const list = await api.ask('GET', `/sandboxes/${id}${route}?path=/workspace/src`);
      assert.deepEqual(
        list.body.entries.map((e: { path: string }) => e.path),
        ['/workspace/src/a b.txt'],
      );
    }
    const deep = await api.ask('GET', `/sandboxes/${id}/files?depth=3`);
    assert.deepEqual(
      deep.body.entries.map((e: { name: string }) => e.name),
      ['src', 'a b.txt'],
    );
    const stat = await api.ask('POST', `/sandboxes/${id}/files/stat`, { body: { path: 'src' } });
    assert.equal(stat.body.is_dir, true);
    const tree = await api.ask('GET', `/sandboxes/${id}/files/tree`);
    assert.equal(tree.body.children[0].children[0].name, 'a b.txt');

    const raw = await api.ask('GET', `/sandboxes/${id}/files/workspace/src/a%20b.txt`);
    assert.equal(raw.body, 'hällo');
    assert.equal(raw.headers.get('content-type'), 'application/octet-stream');
    assert.equal(raw.headers.get('x-content-type-options'), 'nosniff');
    const encoded = await api.ask('GET', `/sandboxes/${id}/files/workspace%2Fsrc%2Fa%20b.txt`);
    assert.equal(encoded.body.data.content, base64('hällo'));
    const typed = await api.ask('GET', `/sandboxes/${id}/files/src/a%20b.txt`, {
      headers: { 'content-type': 'application/json' },
    });
    assert.equal(typed.body.data.content, base64('hällo'));
    assert.equal(await text('/workspace/src/a%20b.txt'), 'hällo');

    const kept = await api.ask('DELETE', `/sandboxes/${id}/files?path=src`);
    assert.equal(kept.body.code, 'CONFLICT');
    assert.equal(
      (await api.ask('DELETE', `/sandboxes/${id}/files?path=src&recursive=true`)).body.deleted,
      true,
    );
    assert.equal((await api.ask('GET', `/sandboxes/${id}/files/src/a%20b.txt`)).status, 404);
    assert.equal((await api.ask('DELETE', `/sandboxes/${id}/files?path=src`)).status, 404);
  });

  test('the newer spellings: content as it is or base64, bytes by query, stat', async () => {
    const at = `/sandboxes/${id}/fs`;
    const write = (body: object) => api.ask('POST', `${at}/write`, { body });
    assert.equal((await write({ path: 'n/plain.txt', content: 'aGk=' })).status, 201);
    assert.equal((await api.ask('GET', `${at}/download?path=n/plain.txt`)).body, 'aGk=');
    assert.equal((await write({ path: 'n/plain.txt', content_base64: 'aGk=' })).body.size, 2);
    assert.equal((await api.ask('GET', `${at}/download?path=/workspace/n/plain.txt`)).body, 'hi');
    assert.equal((await api.ask('POST', `${at}/stat`, { body: { path: 'n/plain.txt' } })).body.size, 2);
    assert.equal(
      (await write({ path: 'n/x', content_base64: '%' })).body.errors.content_base64[0],
      'must be base64',
    );
    assert.equal((await api.ask('GET', `${at}/download?path=nope`)).status, 404);
    assert.equal((await api.ask('GET', `${at}/download?path=../../x`)).status, 403);
  });

  test('write-many tells which failed, each on its own', async () => {
    const answer = await api.ask('POST', `/sandboxes/${id}/files/write-many`, {
      body: {
        files: [
          { path: 'm/1', content_base64: base64('1') },
          { path: '/etc/passwd', content_base64: base64('2') },
          { path: 'm/1/below', content_base64: base64('3') },
        ],
      },
    });
    assert.deepEqual(answer.body.written, [{ path: '/workspace/m/1', size_bytes: 1 }]);
    assert.deepEqual(
      answer.body.failed.map((f: { path: string }) => f.path),
      ['/etc/passwd', 'm/1/below'],
    );
  });

  test('no path leaves the workspace: by name, by encoding, through a link', async () => {
    const root = await api.engine.workspaceDir({ id });
    await symlink('/etc', path.join(root, 'etc'));
    await symlink('/etc/passwd', path.join(root, 'passwd'));
    const refused: [string, string, object?][] = [
      ['POST', '/files', { path: '../x', content: '' }],
      ['POST', '/files', { path: '/tmp/x', content: '' }],
      ['POST', '/files', { path: 'etc/kiln-test', content: '' }],
      ['GET', '/files?path=../..'],
      ['GET', '/files?path=etc'],
      ['GET', '/files/read?path=passwd'],
      ['GET', '/files/..%2f..%2fetc%2fpasswd'],
      ['GET', '/files/tree?path=etc'],
      ['POST', '/files/stat', { path: 'etc/passwd' }],
      ['DELETE', '/files?path=etc/passwd'],
      ['DELETE', '/files?path=/workspace&recursive=true'],
      ['DELETE', '/files?path=..&recursive=true'],
      ['PUT', '/archive?path=etc'],
      ['POST', '/exec', { command: 'true', cwd: '../..' }],
    ];
    for (const [method, at, body] of refused) {
      const answer = await api.ask(method, `/sandboxes/${id}${at}`, body ? { body } : {});
      assert.equal(answer.body.code, 'FORBIDDEN_PATH', `${method} ${at}: ${answer.status}`);
    }
    assert.equal(
      (await api.ask('DELETE', `/sandboxes/${id}/files?path=etc`)).status,
      200,
      'the link itself may go',
    );
    await api.ask('DELETE', `/sandboxes/${id}/files?path=passwd`);
    assert.equal(
      (await api.ask('POST', `/sandboxes/${id}/files`, { body: { path: '.', content: '' } })).status,
      409,
    );
  });

  test('content must be base64 and within the limit; missing parameters are named', async () => {
    const bad = await api.ask('POST', `/sandboxes/${id}/files`, { body: { path: 'x', content: '%%%' } });
    assert.ok(bad.body.errors.content);
    const big = await write('big', 'x'.repeat(2 * 1024 * 1024 + 1));
    assert.equal(big.status, 413);
    assert.equal(big.body.code, 'FILE_TOO_LARGE');
    const huge = await api.ask('POST', `/sandboxes/${id}/files`, { raw: 'x'.repeat(4 * 1024 * 1024) });
    assert.equal(huge.status, 413);
    assert.equal((await api.ask('GET', `/sandboxes/${id}/files/read`)).body.code, 'MISSING_PARAM');
  });

  test('an archive is unpacked; clear replaces, and only by a whole archive', async () => {
    const archive = await tarOf({ 'app/index.html': '<h1>', 'app/x/y.js': '1' });
    const put = await api.ask('PUT', `/sandboxes/${id}/archive`, { raw: archive });
    assert.equal(put.status, 200, JSON.stringify(put.body));
    assert.equal(put.body.files, 2);
    assert.equal(put.body.sha256, createHash('sha256').update(archive).digest('hex'));
    assert.equal(await text('app/x/y.js'), '1');

    const zipped = new Uint8Array(gzipSync(await tarOf({ 'index.html': 'new' })));
    const broken = await api.ask('PUT', `/sandboxes/${id}/archive?clear=true`, { raw: zipped.slice(0, 40) });
    assert.equal(broken.body.code, 'INVALID_ARCHIVE');
    const wrong = await api.ask('PUT', `/sandboxes/${id}/archive?clear=true&sha256=${'0'.repeat(64)}`, {
      raw: zipped,
    });
    assert.equal(wrong.body.code, 'INVALID_ARCHIVE');
    assert.equal(await text('app/x/y.js'), '1', 'nothing was taken away');
    const replaced = await api.ask('PUT', `/sandboxes/${id}/archive?clear=true`, { raw: zipped });
    assert.equal(replaced.status, 200);
    const list = await api.ask('GET', `/sandboxes/${id}/files`);
    assert.deepEqual(
      list.body.entries.map((e: { name: string }) => e.name),
      ['index.html'],
    );

    const below = await api.ask('PUT', `/sandboxes/${id}/archive?path=sub/dir`, { raw: zipped });
    assert.equal(below.status, 200);
    assert.equal(await text('sub/dir/index.html'), 'new');
    const huge = await api.ask('PUT', `/sandboxes/${id}/archive`, {
      raw: await tarOf({ big: 'x'.repeat(5_000_000) }),
    });
    assert.equal(huge.status, 413);
    const many = Object.fromEntries(Array.from({ length: 1001 }, (_, n) => [`f${n}`, '']));
    const crowd = await api.ask('PUT', `/sandboxes/${id}/archive?path=crowd`, { raw: await tarOf(many) });
    assert.equal(crowd.body.code, 'SOURCE_TOO_LARGE');
  });

  test('sync says what is missing and takes away what is not wanted', async () => {
    await api.ask('PUT', `/sandboxes/${id}/archive?clear=true`, {
      raw: await tarOf({ same: '1', old: '2' }),
    });
    const entry = (at: string, content: string) => ({
      path: at,
      type: 'file',
      size: content.length,
      mode: 0o644,
      sha256: createHash('sha256').update(content).digest('hex'),
    });
    const manifest = [entry('fresh', '3'), entry('same', '1')];
    const answer = await api.ask('POST', `/sandboxes/${id}/sync`, { body: { manifest } });
    assert.deepEqual(answer.body, { missing: ['fresh'], deleted: 1 });
    assert.equal((await api.ask('GET', `/sandboxes/${id}/files/old`)).status, 404);
    const bad = await api.ask('POST', `/sandboxes/${id}/sync`, { body: { manifest: [{ path: 5 }] } });
    assert.equal(bad.status, 422);
  });
});

describe('exec', () => {
  const exec = (body: object) => api.ask('POST', `/sandboxes/${id}/exec`, { body });

  test('a non-zero exit is an answer; cwd and dir are folders of the workspace', async () => {
    await write('sub/f', 'x');
    const ran = await exec({ command: 'echo out; echo err >&2; ls; exit 3', cwd: '/workspace/sub' });
    assert.equal(ran.status, 200);
    assert.deepEqual(
      [ran.body.stdout, ran.body.stderr, ran.body.exit_code, ran.body.truncated],
      ['out\nf\n', 'err\n', 3, false],
    );
    assert.match((await exec({ command: 'pwd', dir: 'sub' })).body.stdout, /\/sub\n$/);
    assert.equal((await exec({})).status, 422);
    assert.equal((await exec({ command: 'true', cwd: 'nowhere' })).status, 404);
    assert.equal((await exec({ command: 'true', env: { 'A-B': '1' } })).status, 422);
  });

  test('a timeout ends the command with 124, and output is bounded', async () => {
    const slow = await exec({ command: 'sleep 30', timeout: 0.1 });
    assert.equal(slow.body.exit_code, 124);
    assert.equal(slow.body.reason, 'timed_out');
    const loud = await exec({ command: 'head -c 9000000 /dev/zero' });
    assert.equal(loud.body.truncated, true);
    assert.equal(loud.body.stdout.length, 8 * 1024 * 1024);
  });

  test('streamed line by line, then the exit', async () => {
    const response = await api.app.request(`/api/v1/sandboxes/${id}/exec/stream`, {
      method: 'POST',
      headers: { authorization: `Bearer ${api.key}` },
      body: JSON.stringify({ command: 'echo one; echo two >&2; printf last; exit 2' }),
    });
    assert.match(response.headers.get('content-type')!, /^text\/event-stream/);
    const frames = await readFrames(response);
    const lines = (name: string) => frames.filter((f) => f.event === name).map((f) => f.data.line);
    assert.deepEqual(lines('stdout'), ['one', 'last']);
    assert.deepEqual(lines('stderr'), ['two']);
    assert.equal(frames.at(-1)!.event, 'exit');
    assert.equal(frames.at(-1)!.data.exit_code, 2);
  });

  test('ends when the reader hangs up', async () => {
    const response = await api.app.request(`/api/v1/sandboxes/${id}/exec/stream`, {
      method: 'POST',
      headers: { authorization: `Bearer ${api.key}` },
      body: JSON.stringify({ command: 'echo $$; sleep 60' }),
    });
    const [frame] = await readFrames(response, (frames) => frames.length === 1);
    const pid = Number(frame!.data.line);
    for (let i = 0; i < 200; i++) {
      try {
        process.kill(pid, 0);
      } catch {
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    assert.fail('the command still runs');
  });
});
