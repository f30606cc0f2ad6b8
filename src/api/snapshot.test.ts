/** Snapshots of sandboxes, forks and restores: whole copies, without secrets where they are stored. */
import assert from 'node:assert/strict';
import { symlink } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { ENDPOINTS } from './routes.ts';
import { type Json, openTestApi, type TestApi } from './testing/api.ts';

let api: TestApi;
before(async () => {
  api = await openTestApi({ sandbox_snapshots: 12 });
});
after(() => api.close());

const ask = async (method: string, at: string, body?: unknown, headers = {}): Promise<Json> => {
  const answer = await api.ask(method, at, { ...(body === undefined ? {} : { body }), headers });
  assert.ok(answer.status < 400, `${method} ${at}: ${answer.status} ${JSON.stringify(answer.body)}`);
  return answer.body;
};
const write = (id: string, file: string, text: string) =>
  ask('POST', `/sandboxes/${id}/files`, { path: file, content: Buffer.from(text).toString('base64') });
const read = async (id: string, file: string) =>
  (await api.ask('GET', `/sandboxes/${id}/files/read?path=${encodeURIComponent(file)}`)).body.content;

async function filled(): Promise<Json> {
  const sandbox = await ask('POST', '/sandboxes', {
    env: { TOKEN: 'hush' },
    tags: ['t'],
    metadata: { snapshot_expiration_sec: 60 },
    external_workspace_id: 'acme',
  });
  await write(sandbox.id, 'src/app.js', 'one');
  await write(sandbox.id, 'node_modules/x/index.js', 'dep');
  await write(sandbox.id, 'dist/out.js', 'built');
  await write(sandbox.id, '.env', 'KEY=1');
  const dir = await api.engine.workspaceDir(sandbox);
  await symlink('src/app.js', path.join(dir, 'link'));
  return sandbox;
}

describe('snapshots', () => {
  test('hold the workspace with everything but its secrets, and outlive it', async () => {
    const sandbox = await filled();
    const at = `/sandboxes/${sandbox.id}`;
    const { data: snapshot } = await ask('POST', `${at}/snapshots`, { comment: 'before', keep: true });
    assert.deepEqual(
      [snapshot.status, snapshot.comment, snapshot.expires_at, snapshot.secrets_left_out],
      ['ready', 'before', null, ['.env']],
    );
    assert.equal(snapshot.external_workspace_id, 'acme');
    await write(sandbox.id, 'src/app.js', 'two');
    await ask('DELETE', at);
    const restored = await ask('POST', `${at}/restore/${snapshot.id}`, {});
    assert.equal(restored.state, 'running');
    assert.notEqual(restored.id, sandbox.id);
    assert.equal(await read(restored.id, 'src/app.js'), 'one');
    assert.equal(await read(restored.id, 'link'), 'one');
    assert.equal(await read(restored.id, 'node_modules/x/index.js'), 'dep');
    assert.equal(await read(restored.id, 'dist/out.js'), 'built');
    assert.equal((await api.ask('GET', `/sandboxes/${restored.id}/files/read?path=.env`)).status, 404);
    assert.deepEqual(
      (await ask('GET', `/sandboxes/${restored.id}/env`)).data.map((v: Json) => v.key),
      ['TOKEN'],
    );
    const seen = (await ask('GET', `${at}/snapshots/${snapshot.id}`)).data;
    assert.ok(seen.last_used_at !== null);
    const fresh = await ask('POST', '/sandboxes', { snapshot_id: snapshot.id, name: 'from a snapshot' });
    assert.equal(await read(fresh.id, 'src/app.js'), 'one');
  });

  test('equal content is stored once; a lifetime in each of its spellings; expired and deleted ones are gone', async () => {
    const sandbox = await filled();
    const at = `/sandboxes/${sandbox.id}/snapshots`;
    const lifetimes: [object, number | null][] = [
      [{}, 60],
      [{ retention_seconds: 90 }, 90],
      [{ expiration_seconds: 91 }, 91],
      [{ expiration_days: 2 }, 172_800],
      [{ expiration: '7d' }, 604_800],
      [{ expiration: 5 }, 5],
      [{ keep: true, retention_seconds: 5 }, null],
    ];
    const digests = new Set<string>();
    for (const [body, seconds] of lifetimes) {
      const { data } = await ask('POST', at, body);
      digests.add(data.sha256);
      assert.equal(data.retention_seconds, seconds);
      const left =
        data.expires_at === null ? null : Date.parse(data.expires_at) - Date.parse(data.created_at);
      assert.equal(left === null ? null : Math.round(left / 1000), seconds);
    }
    assert.equal(digests.size, 1);
    const wrong = await api.ask('POST', at, { body: { expiration: 'soon', keep: 'yes' } });
    assert.deepEqual(Object.keys(wrong.body.errors), ['keep']);
    assert.deepEqual((await api.ask('POST', at, { body: { expiration: 'soon' } })).body.errors, {
      expiration: ['must be seconds, or a number with s, m, h or d'],
    });
    const pages: string[] = [];
    for (let cursor: string | null = ''; cursor !== null; ) {
      const page = await ask('GET', `${at}?limit=3${cursor === '' ? '' : `&cursor=${cursor}`}`);
      pages.push(...page.data.map((row: Json) => row.id));
      cursor = page.next_cursor;
    }
    assert.deepEqual([pages.length, new Set(pages).size], [7, 7]);
    assert.deepEqual(pages, [...pages].sort().reverse());
    const [first, second] = pages;
    await api.database.db
      .updateTable('sandbox_snapshots')
      .set({ expires_at: new Date(0) })
      .where('id', '=', first!)
      .execute();
    assert.deepEqual(await ask('DELETE', `${at}/${second}`), { id: second, deleted: true });
    for (const gone of [first, second]) {
      assert.equal((await api.ask('GET', `${at}/${gone}`)).status, 404);
      assert.equal(
        (await api.ask('POST', `/sandboxes/${sandbox.id}/restore/${gone}`, { body: {} })).status,
        404,
      );
    }
    assert.equal((await ask('GET', at)).data.length, 5);
  });

  test('one key, one snapshot; another body is refused; the count is limited', async () => {
    const sandbox = await filled();
    const at = `/sandboxes/${sandbox.id}/snapshots`;
    const key = { 'idempotency-key': 'snap-1' };
    const one = await ask('POST', at, { comment: 'a' }, key);
    const again = await api.ask('POST', at, { body: { comment: 'a' }, headers: key });
    assert.equal(again.headers.get('idempotency-replayed'), 'true');
    assert.equal(again.body.data.id, one.data.id);
    assert.equal((await api.ask('POST', at, { body: { comment: 'b' }, headers: key })).status, 409);
    const { snapshot_id } = await ask('POST', `/sandboxes/${sandbox.id}/snapshot`, {});
    assert.match(snapshot_id, /^snp_/);
    for (;;) {
      const { status, body } = await api.ask('POST', at, { body: {} });
      if (status === 201) continue;
      assert.deepEqual([status, body.code], [409, 'TOO_MANY']);
      break;
    }
  });
});

describe('forks', () => {
  test('have all files as they are now, secrets too, and a life of their own', async () => {
    const sandbox = await filled();
    const fork = await ask('POST', `/sandboxes/${sandbox.id}/fork`, { name: 'twin', metadata: { a: 1 } });
    assert.deepEqual(
      [fork.name, fork.metadata, fork.tags, fork.external_workspace_id],
      ['twin', { a: 1 }, ['t'], 'acme'],
    );
    assert.equal(await read(fork.id, '.env'), 'KEY=1');
    assert.equal(await read(fork.id, 'link'), 'one');
    await write(fork.id, 'src/app.js', 'forked');
    assert.equal(await read(sandbox.id, 'src/app.js'), 'one');
    const second = await ask('POST', `/sandboxes/${sandbox.id}/fork`, { name: 'twin' });
    assert.equal(second.name, 'twin-2');
    const key = { 'idempotency-key': 'fork-1' };
    const one = await ask('POST', `/sandboxes/${sandbox.id}/fork`, { name: 'k' }, key);
    assert.equal((await ask('POST', `/sandboxes/${sandbox.id}/fork`, { name: 'k' }, key)).id, one.id);
  });

  test('one that cannot be filled or written leaves nothing behind', async () => {
    const sandbox = await filled();
    const fill = api.engine.fillSandbox;
    let id = '';
    api.engine.fillSandbox = async (sandbox_id, from) => {
      id = sandbox_id;
      await fill.call(api.engine, sandbox_id, from);
      throw new Error('the disk is gone');
    };
    assert.equal((await api.ask('POST', `/sandboxes/${sandbox.id}/fork`, { body: {} })).status, 500);
    api.engine.fillSandbox = fill;
    assert.equal((await api.ask('GET', `/sandboxes/${id}`)).status, 404);
    const { body } = await api.ask('POST', `/sandboxes/${sandbox.id}/fork`, { body: { template_id: 'x' } });
    assert.equal(body.code, 'UNSUPPORTED');
    const missing = await api.ask('POST', `/sandboxes/${sandbox.id}/fork`, {
      body: { snapshot_id: 'snp_0' },
    });
    assert.equal(missing.status, 404);
    await ask('DELETE', `/sandboxes/${sandbox.id}`);
    const dead = await api.ask('POST', `/sandboxes/${sandbox.id}/fork`, { body: {} });
    assert.deepEqual([dead.status, dead.body.code], [409, 'SANDBOX_NOT_RUNNING']);
  });

  test('a snapshot is published by a fork that is deleted at once', async () => {
    const sandbox = await filled();
    await api.database.db.deleteFrom('sandbox_snapshots').execute();
    const { data: snapshot } = await ask('POST', `/sandboxes/${sandbox.id}/snapshots`, {});
    const release = await ask('POST', `/sandboxes/${sandbox.id}/fork`, {
      snapshot_id: snapshot.id,
      name: `release-${snapshot.id.slice(0, 12)}`,
      metadata: { release_source_sandbox_id: sandbox.id, snapshot_id: snapshot.id },
    });
    const { data } = await ask('POST', `/sandboxes/${release.id}/deploy`, { name: 'pinned' });
    await ask('DELETE', `/sandboxes/${release.id}`);
    await api.engine.finish(data.version_id);
    const version = await ask('GET', `/versions/${data.version_id}`);
    assert.deepEqual([version.data.state, version.data.source_sandbox_id], ['ready', release.id]);
  });
});

test('nobody else sees them, and writing needs its scope', async () => {
  const sandbox = await filled();
  await api.database.db.deleteFrom('sandbox_snapshots').execute();
  const { data: snapshot } = await ask('POST', `/sandboxes/${sandbox.id}/snapshots`, {});
  const reader = await api.makeKey({ scopes: ['sandboxes:read'] });
  for (const { route } of ENDPOINTS.filter(({ route }) => route.tag === 'Sandbox snapshots')) {
    const at = route.path.replace('{id}', sandbox.id).replace('{snapshot_id}', snapshot.id);
    const method = route.method.toUpperCase();
    const body = method === 'GET' ? {} : { body: {} };
    assert.equal((await api.ask(method, at, { ...body, key: api.foreign_key })).status, 404, route.id);
    const read_only = await api.ask(method, at, { ...body, key: reader });
    assert.equal(read_only.status, method === 'GET' ? 200 : 403, route.id);
  }
  const foreign = await api.ask('POST', '/sandboxes', {
    body: { snapshot_id: snapshot.id },
    key: api.foreign_key,
  });
  assert.equal(foreign.status, 404);
});
