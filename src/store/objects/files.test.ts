import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { it } from 'node:test';
import { KilnError } from '../../domain/errors.ts';
import { objectStoreContract } from './contract.ts';
import { type Fault, faultyObjectStore } from './faulty.ts';
import { fileObjectStore } from './files.ts';

const KEY = `sources/${'a'.repeat(64)}.tar.zst`;

async function makeDir(): Promise<{ dir: string; close: () => Promise<void> }> {
  const dir = await mkdtemp(join(tmpdir(), 'kiln-objects-'));
  return { dir, close: () => rm(dir, { recursive: true, force: true }) };
}

objectStoreContract('files', async () => {
  const { dir, close } = await makeDir();
  return { store: fileObjectStore(join(dir, 'objects')), close };
});

objectStoreContract('faulty, nothing armed', async () => {
  const { dir, close } = await makeDir();
  return { store: faultyObjectStore(fileObjectStore(dir), []), close };
});

it('sweeps what a crashed writer left, not what is being written', async () => {
  const { dir, close } = await makeDir();
  try {
    const store = fileObjectStore(dir);
    await mkdir(join(dir, '.tmp'), { recursive: true });
    await writeFile(join(dir, '.tmp', '999-1-0'), 'half an object');
    let sent = () => {};
    const started = new Promise<void>((resolve) => {
      sent = resolve;
    });
    let go = () => {};
    const slow = async function* () {
      yield Buffer.from('one ');
      sent();
      await new Promise<void>((resolve) => {
        go = resolve;
      });
      yield Buffer.from('two');
    };
    const put = store.put(KEY, slow());
    await started;
    assert.equal(await store.sweepTemp(), 1);
    go();
    assert.deepEqual(await put, { size_bytes: 7, existed: false });
    assert.deepEqual(await readdir(join(dir, '.tmp')), []);
    assert.equal(await store.sweepTemp(), 0);
  } finally {
    await close();
  }
});

it('leaves nothing behind when storing fails, and says STORAGE_FAILED', async () => {
  const { dir, close } = await makeDir();
  try {
    await writeFile(join(dir, 'sources'), 'a file where the folder should be');
    const store = fileObjectStore(dir);
    await assert.rejects(
      store.put(KEY, Readable.from([Buffer.from('x')])),
      (error) => error instanceof KilnError && error.code === 'STORAGE_FAILED',
    );
    assert.deepEqual(await readdir(join(dir, '.tmp')).catch(() => []), []);
  } finally {
    await close();
  }
});

it('copies a file that comes from another file system', async (t) => {
  const { dir, close } = await makeDir();
  const other = await mkdtemp('/dev/shm/kiln-objects-').catch(() => null);
  if (!other) return t.skip('no second file system (/dev/shm) to move from');
  try {
    const path = join(other, 'finished');
    await writeFile(path, 'from afar');
    const store = fileObjectStore(dir);
    assert.deepEqual(await store.putFile(KEY, path), { size_bytes: 9, existed: false });
    assert.equal((await buffer(await store.get(KEY))).toString(), 'from afar');
    assert.deepEqual(await readdir(other), []);
  } finally {
    await rm(other, { recursive: true });
    await close();
  }
});

it('lists nothing that is not a key', async () => {
  const { dir, close } = await makeDir();
  try {
    await mkdir(join(dir, 'sources'), { recursive: true });
    await writeFile(join(dir, 'sources', 'Upper.tar'), '');
    await writeFile(join(dir, 'loose'), '');
    await symlink('/etc', join(dir, 'etc'));
    const found: string[] = [];
    for await (const { key } of fileObjectStore(dir).list('')) found.push(key);
    assert.deepEqual(found, []);
  } finally {
    await close();
  }
});

it('injects each fault into the call that was planned', async () => {
  const { dir, close } = await makeDir();
  try {
    const plan: Fault[] = [
      { operation: 'put', nth: 1, kind: 'no_space' },
      { operation: 'put', nth: 2, kind: 'lost_answer' },
      { operation: 'get', nth: 1, kind: 'short_read' },
      { operation: 'get', nth: 2, kind: 'truncated' },
      { operation: 'head', nth: 'every', kind: 'fail' },
    ];
    const store = faultyObjectStore(fileObjectStore(dir), plan);
    const body = () => Readable.from([Buffer.from('0123456789')]);
    const isFailed = (error: unknown) => error instanceof KilnError && error.code === 'STORAGE_FAILED';
    await assert.rejects(store.put(KEY, body()), isFailed);
    await assert.rejects(store.head(KEY), isFailed);
    plan.pop();
    assert.equal(await store.head(KEY), null);
    await assert.rejects(store.put(KEY, body()), isFailed);
    assert.equal((await store.head(KEY))?.size_bytes, 10);
    await assert.rejects(store.get(KEY).then(buffer), isFailed);
    assert.equal((await buffer(await store.get(KEY))).toString(), '01234');
    assert.equal((await buffer(await store.get(KEY))).toString(), '0123456789');
    assert.deepEqual(store.calls, { put: 2, putFile: 0, head: 3, get: 3, delete: 0, list: 0 });
  } finally {
    await close();
  }
});
