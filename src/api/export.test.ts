/** Exports: descriptors with addresses, single files as they are, several as one tar.gz. */
import assert from 'node:assert/strict';
import { symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import tar from 'tar-stream';
import { type Json, openTestApi, type TestApi } from './testing/api.ts';

let api: TestApi;
let sandbox: Json;
let dir: string;
const authorized = () => ({ headers: { authorization: `Bearer ${api.key}` } });
before(async () => {
  api = await openTestApi({ archive_bytes: 512 * 1024 });
  sandbox = (await api.ask('POST', '/sandboxes', { body: {} })).body;
  const files = {
    'out/report.html': '<script>1</script>',
    'out/data/a.csv': '1,2',
    'other/b.txt': 'b',
    '.env': 'K=1',
  };
  for (const [file, text] of Object.entries(files))
    await api.ask('POST', `/sandboxes/${sandbox.id}/files`, {
      body: { path: `/workspace/${file}`, content: Buffer.from(text).toString('base64') },
    });
  dir = await api.engine.workspaceDir(sandbox);
  await symlink('/etc/passwd', path.join(dir, 'out', 'link'));
});
after(() => api.close());

const create = (body: unknown) => api.ask('POST', `/sandboxes/${sandbox.id}/exports`, { body });
const fetched = (url: string) => api.app.request(url, authorized());

async function unpacked(response: Response): Promise<Record<string, string>> {
  assert.equal(response.status, 200, await (response.status === 200 ? '' : response.clone().text()));
  assert.equal(response.headers.get('content-type'), 'application/gzip');
  const extract = tar.extract();
  extract.end(gunzipSync(Buffer.from(await response.arrayBuffer())));
  const found: Record<string, string> = {};
  for await (const entry of extract) {
    const parts: Buffer[] = [];
    for await (const part of entry) parts.push(part as Buffer);
    if (entry.header.type !== 'directory')
      found[entry.header.name] = entry.header.linkname ?? Buffer.concat(parts).toString();
  }
  return found;
}

test('a descriptor whose addresses give the bytes', async () => {
  const { status, body } = await create({ paths: ['/workspace/out', 'other/b.txt'], label: 'results' });
  assert.equal(status, 201);
  const { files, ...rest } = body.data;
  assert.match(rest.id, /^exp_/);
  assert.deepEqual([rest.label, rest.status, rest.sandbox_id], ['results', 'ready', sandbox.id]);
  assert.deepEqual(
    files.map((f: Json) => [f.path, f.filename, f.is_dir]),
    [
      ['/workspace/out', 'out.tar.gz', true],
      ['/workspace/other/b.txt', 'b.txt', false],
    ],
  );
  assert.equal(await (await fetched(files[1].download_url)).text(), 'b');
  assert.deepEqual(await unpacked(await fetched(files[0].download_url)), {
    'out/report.html': '<script>1</script>',
    'out/data/a.csv': '1,2',
    'out/link': '/etc/passwd',
  });
  assert.deepEqual(Object.keys(await unpacked(await fetched(rest.archive_download_url))).sort(), [
    'other/b.txt',
    'out/data/a.csv',
    'out/link',
    'out/report.html',
  ]);
});

test('a file is sent as it is, under the name asked for, and never as a page', async () => {
  const at = `/api/v1/sandboxes/${sandbox.id}/exports/download`;
  const answer = await fetched(
    `${at}?path=out/report.html&filename=${encodeURIComponent('bericht "ä".html\r\nx')}`,
  );
  assert.equal(await answer.text(), '<script>1</script>');
  assert.equal(answer.headers.get('content-type'), 'application/octet-stream');
  assert.equal(answer.headers.get('x-content-type-options'), 'nosniff');
  assert.equal(answer.headers.get('content-length'), '18');
  assert.equal(
    answer.headers.get('content-disposition'),
    `attachment; filename="bericht ___.html__x"; filename*=UTF-8''bericht%20%22%C3%A4%22.html%0D%0Ax`,
  );
  await writeFile(path.join(dir, 'empty'), '');
  assert.equal(await (await fetched(`${at}?path=empty`)).text(), '');
  assert.deepEqual(Object.keys(await unpacked(await fetched(`${at}?paths[]=.env&paths[]=other`))).sort(), [
    '.env',
    'other/b.txt',
  ]);
});

test('what is missing, outside, a link or too much is refused, and nothing is left behind', async () => {
  const codes = async (query: string) => {
    const answer = await api.ask('GET', `/sandboxes/${sandbox.id}/exports/download?${query}`);
    return [answer.status, answer.body.code];
  };
  assert.deepEqual(await codes(''), [400, 'MISSING_PARAM']);
  assert.deepEqual(await codes('path=nope'), [404, 'NOT_FOUND']);
  assert.deepEqual(await codes('path=../../x'), [403, 'FORBIDDEN_PATH']);
  assert.deepEqual(await codes('path=out/link'), [403, 'FORBIDDEN_PATH']);
  assert.equal((await create({})).status, 422);
  assert.equal((await create({ path: 'nope' })).status, 404);
  await writeFile(path.join(dir, 'big'), Buffer.alloc(600 * 1024));
  assert.deepEqual(await codes('paths[]=big'), [413, 'FILE_TOO_LARGE']);
  assert.equal(
    (await api.ask('GET', `/sandboxes/${sandbox.id}/exports/download?path=out`, { key: api.foreign_key }))
      .status,
    404,
  );
  assert.equal(
    (
      await api.ask('POST', `/sandboxes/${sandbox.id}/exports`, {
        body: { path: 'out' },
        key: api.foreign_key,
      })
    ).status,
    404,
  );
  const { readdir } = await import('node:fs/promises');
  assert.deepEqual(await readdir(path.dirname(dir)), ['workspace']);
});
