import assert from 'node:assert/strict';
import { mkdtemp, rm, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import { MemoryObjects, sha256, storeRelease } from './static-site.fixture.ts';
import { openStaticSite } from './static-site.ts';

const BIG = Buffer.alloc(700_000, 'abcdefg');
const FILES = { 'index.html': '<h1>hi</h1>', 'empty.txt': '', 'assets/big.bin': BIG };

async function folder(t: TestContext): Promise<string> {
  const dir = await mkdtemp(path.join(tmpdir(), 'kiln-site-'));
  t.after(() => rm(dir, { recursive: true }));
  return dir;
}

for (const kind of ['local files', 'ranges of objects'] as const) {
  test(`reads files and parts of them from ${kind}`, async (t) => {
    const objects = new MemoryObjects(kind === 'local files' ? await folder(t) : null);
    const { object_key, index_key } = await storeRelease(objects, FILES);
    const site = await openStaticSite(objects, object_key, index_key);
    const index = site.lookup('index.html')!;
    assert.equal((await site.readAll(index)).toString(), '<h1>hi</h1>');
    assert.equal(index.sha256, sha256('<h1>hi</h1>'));
    assert.equal((await site.readAll(site.lookup('empty.txt')!)).length, 0);
    const big = site.lookup('assets/big.bin')!;
    assert.equal((await buffer(site.stream(big, 0, big.size))).equals(BIG), true);
    assert.equal(
      (await buffer(site.stream(big, 300_000, 600_001))).equals(BIG.subarray(300_000, 600_001)),
      true,
    );
    assert.equal((await buffer(site.stream(big, 5, 5))).length, 0);
    assert.equal(site.lookup('constructor'), undefined);
    assert.equal(site.lookup('__proto__'), undefined);
    await site.close();
  });
}

test('a release that is not stored is ARTIFACT_GONE', async (t) => {
  for (const objects of [new MemoryObjects(), new MemoryObjects(await folder(t))]) {
    const { object_key, index_key } = await storeRelease(objects, FILES);
    await assert.rejects(openStaticSite(objects, object_key, 'releases/none.json'), {
      code: 'ARTIFACT_GONE',
    });
    await assert.rejects(openStaticSite(objects, 'releases/none.tar', index_key), { code: 'ARTIFACT_GONE' });
  }
});

test('a stored tar that is too short is an error, never a short file', async (t) => {
  const objects = new MemoryObjects(await folder(t));
  const { object_key, index_key } = await storeRelease(objects, FILES);
  await truncate(objects.localPath(object_key)!, 300_000);
  const site = await openStaticSite(objects, object_key, index_key);
  const big = site.lookup('assets/big.bin')!;
  await assert.rejects(buffer(site.stream(big, 0, big.size)), { code: 'STORAGE_FAILED' });
  await assert.rejects(site.readAll(big), { code: 'STORAGE_FAILED' });
  await site.close();
});

test('an index with anything malformed is refused', async () => {
  const good = { offset: 512, size: 1, sha256: 'a'.repeat(64) };
  const bad: unknown[] = [
    null,
    [],
    { files: null },
    { files: { '../etc/passwd': good } },
    { files: { '/abs': good } },
    { files: { 'a//b': good } },
    { files: { a: { ...good, offset: -1 } } },
    { files: { a: { ...good, size: 1.5 } } },
    { files: { a: { ...good, sha256: 'zz' } } },
    { files: { a: null } },
  ];
  for (const index of bad) {
    const objects = new MemoryObjects();
    await objects.put('t.tar', Readable.from([Buffer.alloc(1024)]));
    await objects.put('i.json', Readable.from([Buffer.from(JSON.stringify(index))]));
    await assert.rejects(openStaticSite(objects, 't.tar', 'i.json'), { code: 'STORAGE_FAILED' });
  }
});
