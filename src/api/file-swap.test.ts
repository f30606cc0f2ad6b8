/** Code in a sandbox puts links where folders were while the API reaches in: nothing of the host may be seen or touched. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, rmdir, symlink, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import tar from 'tar-stream';
import { openTestApi, type TestApi } from './testing/api.ts';

/** Nobody hostile shares a workspace there: plain paths are used. */
const skip = !existsSync('/proc/self/fd') && 'there is no /proc';
let api: TestApi;
let id: string;
let root: string;
/** A folder of the host that no sandbox may reach. */
let host: string;

before(async () => {
  api = await openTestApi();
  host = await mkdtemp(path.join(os.tmpdir(), 'kiln-host-'));
});
after(async () => {
  await api.close();
  await rm(host, { recursive: true, force: true });
});
beforeEach(async () => {
  id = (await api.ask('POST', '/sandboxes', { body: {} })).body.id;
  root = await api.engine.workspaceDir({ id });
  await rm(host, { recursive: true, force: true });
  await mkdir(path.join(host, 'deep'), { recursive: true });
  await writeFile(path.join(host, 'x'), 'of the host');
  await writeFile(path.join(host, 'deep/host-only'), 'of the host');
});

async function hostIsWhole(): Promise<void> {
  assert.deepEqual((await readdir(host, { recursive: true })).sort(), ['deep', 'deep/host-only', 'x']);
  assert.equal(await readFile(path.join(host, 'x'), 'utf8'), 'of the host');
}

describe('an archive whose folder becomes a link while its body is on the way', { skip }, () => {
  async function upload(query: string, swap: () => Promise<void>) {
    const pack = tar.pack();
    pack.entry({ name: 'planted' }, 'x');
    pack.entry({ name: 'deep/planted' }, 'x');
    pack.finalize();
    const bytes: Buffer[] = [];
    for await (const piece of pack) bytes.push(piece as Buffer);
    // Asked for when the handler reads: the folder has been looked up by then.
    const body = new ReadableStream<Uint8Array>(
      {
        async pull(controller) {
          await swap();
          controller.enqueue(new Uint8Array(Buffer.concat(bytes)));
          controller.close();
        },
      },
      { highWaterMark: 0 },
    );
    return api.app.request(`/api/v1/sandboxes/${id}/archive?path=/workspace/sub${query}`, {
      method: 'PUT',
      headers: { authorization: `Bearer ${api.key}` },
      body,
      duplex: 'half',
    } as RequestInit);
  }

  for (const query of ['', '&clear=true'])
    test(`nothing of the host is written or removed (${query || 'added to it'})`, async () => {
      const sub = path.join(root, 'sub');
      await mkdir(sub);
      const answer = await upload(query, async () => {
        await rmdir(sub);
        await symlink(host, sub);
      });
      await hostIsWhole();
      assert.ok(answer.status >= 400 && answer.status < 500, `${answer.status} ${await answer.text()}`);
      assert.deepEqual(await readdir(path.dirname(root)), ['workspace'], 'nothing lies beside the workspace');
    });

  test('a folder that moves meanwhile: the files are in it, or where it was', async () => {
    const sub = path.join(root, 'sub');
    await mkdir(sub);
    const answer = await upload('', () => rename(sub, path.join(root, 'moved')));
    await hostIsWhole();
    assert.equal(answer.status, 200);
    assert.ok((await readdir(root)).includes('moved'));
  });
});

/**
 * A thread that makes `f` in the workspace a folder and a link to the host's in turn, as fast as it can. Whether a call meets
 * the wrong moment is chance; that it does no harm there is not.
 */
const SWAPPER = `
  const { workerData, parentPort } = require('node:worker_threads');
  const fs = require('node:fs');
  const { root, host, stop } = workerData;
  const quietly = (work) => { try { work(); } catch {} };
  quietly(() => fs.symlinkSync(host, root + '/link'));
  parentPort.postMessage('ready');
  while (Atomics.load(stop, 0) === 0) {
    quietly(() => fs.mkdirSync(root + '/f'));
    quietly(() => fs.mkdirSync(root + '/f/deep'));
    quietly(() => fs.writeFileSync(root + '/f/x', 'of the workspace', { flag: 'wx' }));
    for (let n = 0; n < 20; n++) {
      quietly(() => { fs.renameSync(root + '/f', root + '/aside'); fs.renameSync(root + '/link', root + '/f'); });
      quietly(() => { fs.renameSync(root + '/f', root + '/link'); fs.renameSync(root + '/aside', root + '/f'); });
    }
  }
`;

async function whileSwapping(work: () => Promise<void>): Promise<void> {
  const stop = new Int32Array(new SharedArrayBuffer(4));
  const worker = new Worker(SWAPPER, { eval: true, workerData: { root, host, stop } });
  const ended = new Promise((resolve) => worker.once('exit', resolve));
  try {
    await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
    await work();
  } finally {
    Atomics.store(stop, 0, 1);
    await ended;
  }
}

describe('a folder that is a link every other moment', { skip }, () => {
  const TRIES = 150;
  const sandbox = (at: string) => `/sandboxes/${id}${at}`;

  test('is listed, described and read as the workspace holds it, or not at all', async () => {
    await whileSwapping(async () => {
      for (let n = 0; n < TRIES; n++) {
        const list = await api.ask('GET', sandbox('/files?path=/workspace/f&depth=3'));
        const tree = await api.ask('GET', sandbox('/files/tree?path=f&depth=3'));
        const stat = await api.ask('POST', sandbox('/files/stat'), { body: { path: 'f/deep/host-only' } });
        const read = await api.ask('GET', sandbox('/fs/download?path=f/x'));
        for (const { body, status } of [list, tree, stat, read])
          assert.ok(status < 500, JSON.stringify(body));
        const seen = JSON.stringify([list.body, tree.body, read.body]);
        assert.ok(!/host-only|of the host/.test(seen), `try ${n}: ${seen}`);
        assert.notEqual(stat.status, 200);
      }
    });
  });

  test('loses what the workspace holds, never what the host does', async () => {
    await whileSwapping(async () => {
      for (let n = 0; n < TRIES; n++) {
        for (const at of ['f/x', 'f/deep&recursive=true', 'f&recursive=true']) {
          const { status, body } = await api.ask('DELETE', sandbox(`/files?path=/workspace/${at}`));
          assert.ok(status < 500, JSON.stringify(body));
        }
        await hostIsWhole();
      }
    });
  });

  test('takes what is written, and the host does not', async () => {
    await whileSwapping(async () => {
      for (let n = 0; n < TRIES; n++) {
        for (const at of ['f/x', 'f/new/deeper/y']) {
          const { status, body } = await api.ask('POST', sandbox('/files'), {
            body: { path: at, content: 'bmV3' },
          });
          assert.ok(status < 500, JSON.stringify(body));
        }
        await hostIsWhole();
      }
    });
  });
});

test('whether a file of the host exists is not told: links out of the workspace answer alike', async () => {
  await symlink(path.join(host, 'x'), path.join(root, 'there'));
  await symlink(path.join(host, 'nothing'), path.join(root, 'lost!'));
  const said = async (at: string) =>
    (await api.ask('POST', `/sandboxes/${id}/files/stat`, { body: { path: at } })).body.message;
  assert.equal((await said('there')).replace('there', 'lost!'), await said('lost!'));
});
