/** The suite every object store passes. Import it from the driver's test: node:test registers the tests. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { describe, it } from 'node:test';
import { constants, zstdCompressSync } from 'node:zlib';
import { KilnError } from '../../domain/errors.ts';
import type { ObjectStore } from './port.ts';

export interface StoreUnderTest {
  store: ObjectStore;
  close(): Promise<void>;
}

const SHA = 'a'.repeat(64);
const KEY = `sources/${SHA}.tar.zst`;

const bodyOf = (text: string): Readable => Readable.from([Buffer.from(text)]);
const textOf = async (body: Promise<Readable>): Promise<string> => (await buffer(await body)).toString();
const isCode = (code: string) => (error: unknown) => error instanceof KilnError && error.code === code;

const zstdLevel = (level: number) => ({ [constants.ZSTD_c_compressionLevel]: level });

function ofContent(folder: string, ending: string, text: string): [key: string, content: Buffer] {
  return [`${folder}${createHash('sha256').update(text).digest('hex')}${ending}`, Buffer.from(text)];
}

async function keysOf(store: ObjectStore, prefix: string): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of store.list(prefix)) keys.push(key);
  return keys;
}

/** `makeStore` gives an empty store each time. */
export function objectStoreContract(name: string, makeStore: () => Promise<StoreUnderTest>): void {
  const withStore = (run: (store: ObjectStore) => Promise<void>) => async () => {
    const { store, close } = await makeStore();
    try {
      await run(store);
    } finally {
      await close();
    }
  };

  describe(`object store contract: ${name}`, () => {
    writing(withStore);
    moving(withStore);
    reading(withStore);
    listing(withStore);
  });
}

type WithStore = (run: (store: ObjectStore) => Promise<void>) => () => Promise<void>;

function writing(withStore: WithStore): void {
  it(
    'stores a body whole and says how large it is',
    withStore(async (store) => {
      assert.deepEqual(await store.put(KEY, bodyOf('hello')), { size_bytes: 5, existed: false });
      assert.equal(await textOf(store.get(KEY)), 'hello');
      const head = await store.head(KEY);
      assert.equal(head?.size_bytes, 5);
      assert.ok(Math.abs(head.modified_at.getTime() - Date.now()) < 60_000);
    }),
  );

  it(
    'keeps the object that is there and lets the new body go, however that is compressed',
    withStore(async (store) => {
      const [key, content] = ofContent('sources/', '.tar.zst', 'first '.repeat(1000));
      const [once, twice] = [1, 19].map((level) => zstdCompressSync(content, { params: zstdLevel(level) }));
      const { size_bytes } = await store.put(key, Readable.from([once]));
      const second = Readable.from([twice]);
      assert.deepEqual(await store.put(key, second), { size_bytes, existed: true });
      assert.ok(second.destroyed || second.readableEnded);
      assert.deepEqual(await buffer(await store.get(key)), once);
    }),
  );

  for (const [folder, ending] of [
    ['sources/', '.tar.zst'],
    ['releases/', '.tar'],
    ['blobs/sha256/', ''],
  ] as const)
    it(
      `puts a whole object in the place of a damaged one: ${folder}<sha256>${ending}`,
      withStore(async (store) => {
        const [key, content] = ofContent(folder, ending, 'the content');
        const whole = ending === '.tar.zst' ? zstdCompressSync(content) : content;
        const flipped = Buffer.from(whole);
        flipped[whole.length - 2]! ^= 0xff;
        for (const damaged of [flipped, whole.subarray(0, 5)]) {
          await store.delete(key);
          await store.put(key, Readable.from([damaged]));
          const put = await store.put(key, Readable.from([whole]));
          assert.deepEqual(put, { size_bytes: whole.length, existed: false });
          assert.deepEqual(await buffer(await store.get(key)), whole);
        }
      }),
    );

  it(
    'puts another index in the place of one that is there: no digest says which is right',
    withStore(async (store) => {
      const key = `releases/${SHA}.index.json`;
      await store.put(key, bodyOf('{"fi'));
      assert.deepEqual(await store.put(key, bodyOf('{}')), { size_bytes: 2, existed: false });
      assert.deepEqual(await store.put(key, bodyOf('{}')), { size_bytes: 2, existed: true });
      assert.equal(await textOf(store.get(key)), '{}');
    }),
  );

  it(
    'stores nothing when the body breaks off',
    withStore(async (store) => {
      const breaking = async function* () {
        yield Buffer.from('half of it');
        throw new Error('the sender is gone');
      };
      await assert.rejects(store.put(KEY, breaking()), /the sender is gone/);
      assert.equal(await store.head(KEY), null);
      assert.deepEqual(await keysOf(store, ''), []);
      assert.deepEqual(await store.put(KEY, bodyOf('whole')), { size_bytes: 5, existed: false });
    }),
  );

  it(
    'takes many writers of one key at once, and of many keys',
    withStore(async (store) => {
      const large = Buffer.alloc(300_000, 'x');
      const keys = Array.from({ length: 20 }, (_, n) => `releases/${String(n % 4).repeat(64)}.tar`);
      await Promise.all(keys.map((key) => store.put(key, Readable.from([large, large]))));
      assert.equal((await keysOf(store, 'releases/')).length, 4);
      for (const key of new Set(keys)) assert.equal((await buffer(await store.get(key))).length, 600_000);
    }),
  );
}

function moving(withStore: WithStore): void {
  it(
    'moves a file in; the file is gone afterwards, also when the object was there',
    withStore(async (store) => {
      const dir = await mkdtemp(join(tmpdir(), 'kiln-contract-'));
      try {
        for (const existed of [false, true]) {
          const path = join(dir, 'finished');
          await writeFile(path, 'from a file');
          assert.deepEqual(await store.putFile(KEY, path), { size_bytes: 11, existed });
          await assert.rejects(stat(path), { code: 'ENOENT' });
        }
        assert.equal(await textOf(store.get(KEY)), 'from a file');
        await assert.rejects(store.putFile(`sources/${'b'.repeat(64)}.tar.zst`, join(dir, 'none')));
      } finally {
        await rm(dir, { recursive: true });
      }
    }),
  );

  it(
    'refuses keys that are not keys',
    withStore(async (store) => {
      for (const key of [
        '',
        'x',
        '/a/b',
        'a/../b',
        '../a/b',
        'a/./b',
        'a//b',
        'a/b/',
        'a/.b',
        'A/b',
        'a/b\0',
        'a\\b/c',
      ]) {
        await assert.rejects(async () => store.put(key, bodyOf('x')), TypeError, key);
        await assert.rejects(async () => store.get(key), TypeError, key);
      }
      await assert.rejects(async () => store.head(`a/${'b'.repeat(300)}`), TypeError);
    }),
  );
}

function reading(withStore: WithStore): void {
  it(
    'answers ranges, start inclusive and end exclusive',
    withStore(async (store) => {
      await store.put(KEY, bodyOf('0123456789'));
      assert.equal(await textOf(store.get(KEY, { start: 0, end: 4 })), '0123');
      assert.equal(await textOf(store.get(KEY, { start: 9, end: 10 })), '9');
      assert.equal(await textOf(store.get(KEY, { start: 5, end: 5 })), '');
      assert.equal(await textOf(store.get(KEY, { start: 8, end: 99 })), '89');
      await assert.rejects(async () => store.get(KEY, { start: 4, end: 2 }), TypeError);
    }),
  );

  it(
    'says ARTIFACT_GONE for what is not there, and null to head',
    withStore(async (store) => {
      await assert.rejects(store.get(KEY), isCode('ARTIFACT_GONE'));
      await assert.rejects(store.get(KEY, { start: 0, end: 0 }), isCode('ARTIFACT_GONE'));
      assert.equal(await store.head(KEY), null);
    }),
  );

  it(
    'deletes, and deleting twice is fine',
    withStore(async (store) => {
      await store.put(KEY, bodyOf('x'));
      await store.delete(KEY);
      await store.delete(KEY);
      assert.equal(await store.head(KEY), null);
    }),
  );

  it(
    'gives an object to its reader to the end, though it is deleted meanwhile',
    withStore(async (store) => {
      const body = Buffer.alloc(2_000_000, 'y');
      await store.put(KEY, Readable.from([body]));
      const reader = await store.get(KEY);
      await store.delete(KEY);
      assert.ok((await buffer(reader)).equals(body));
    }),
  );
}

function listing(withStore: WithStore): void {
  it(
    'lists by prefix, in the order of the keys, whole objects only',
    withStore(async (store) => {
      const keys = [
        'releases/b.tar',
        'releases/a.tar',
        'releases-old/x.tar',
        'sources/a.tar.zst',
        'sources/deep/er/b.tar',
        `blobs/sha256/${SHA}`,
      ];
      for (const key of keys) await store.put(key, bodyOf(key));
      assert.deepEqual(await keysOf(store, ''), [...keys].sort());
      assert.deepEqual(await keysOf(store, 'releases/'), ['releases/a.tar', 'releases/b.tar']);
      assert.deepEqual(await keysOf(store, 'releases'), [
        'releases-old/x.tar',
        'releases/a.tar',
        'releases/b.tar',
      ]);
      assert.deepEqual(await keysOf(store, 'sources/a'), ['sources/a.tar.zst']);
      assert.deepEqual(await keysOf(store, 'sources/deep/'), ['sources/deep/er/b.tar']);
      assert.deepEqual(await keysOf(store, 'blobs/sha256/'), [`blobs/sha256/${SHA}`]);
      assert.deepEqual(await keysOf(store, 'none/'), []);
      assert.deepEqual(await keysOf(store, '../'), []);
    }),
  );
}
