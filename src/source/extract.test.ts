import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, readlink, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { describe, it } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import fc from 'fast-check';
import { type Header, pack } from 'tar-stream';
import { KilnError } from '../domain/errors.ts';
import { DigestMismatch, type ExtractOptions, extractTar } from './extract.ts';
import { isCode } from './snapshot.fixtures.ts';
import { plant, scratch } from './tree.fixtures.ts';

const LIMITS = { max_bytes: 50_000_000, max_files: 1000 };

type Entry = Partial<Header> & { name: string; content?: string | Buffer };

/** An archive as somebody else's program would make it. */
async function archive(...entries: Entry[]): Promise<Buffer> {
  const tar = pack();
  for (const { content = '', ...header } of entries) tar.entry(header as Header, content);
  tar.finalize();
  return buffer(tar);
}

/** One raw header block with a right checksum, for what tar-stream would not write. */
function header(name: string, type: string, more: (block: Buffer) => void = () => {}): Buffer {
  const block = Buffer.alloc(512);
  block.write(name, 0, 'latin1');
  block.write('0000644\0', 100);
  block.write('00000000000\0', 124);
  block.write(type, 156);
  block.write('ustar\x0000', 257, 'latin1');
  more(block);
  block.write('        ', 148);
  let sum = 0;
  for (const byte of block) sum += byte;
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return block;
}

const END = Buffer.alloc(1024);
const padded = (text: string) =>
  Buffer.concat([Buffer.from(text), Buffer.alloc((512 - (text.length % 512)) % 512)]);
const sized = (size: number) => (block: Buffer) =>
  void block.write(`${size.toString(8).padStart(11, '0')}\0`, 124);
const paxRecord = (text: string) => {
  for (let length = text.length + 3; ; length++) {
    const record = `${length} ${text}\n`;
    if (record.length === length) return record;
  }
};
const pax = (text: string) => Buffer.concat([header('pax', 'x', sized(text.length)), padded(text)]);

async function unpack(dir: string, bytes: Buffer, more: Partial<ExtractOptions> = {}) {
  const into = join(dir, 'into');
  return { into, ...(await extractTar({ input: Readable.from([bytes]), into, limits: LIMITS, ...more })) };
}

describe('extractTar', () => {
  it('tells tar, gzip and zstd apart by their first bytes, in pieces of any size', async () => {
    const tar = await archive(
      { name: './a/b.txt', content: 'hello' },
      { name: 'run', content: 'x', mode: 0o4775 },
      { name: 'large', content: Buffer.alloc(2_000_000, 'l') },
    );
    const sha256 = createHash('sha256').update(tar).digest('hex');
    const halves = [tar.subarray(0, 1_000_000), tar.subarray(1_000_000)];
    const forms = {
      tar,
      gzip: gzipSync(tar),
      'gzip of two members': Buffer.concat(halves.map((half) => gzipSync(half))),
      zstd: zstdCompressSync(tar),
      'zstd of two frames': Buffer.concat(halves.map((half) => zstdCompressSync(half))),
    };
    for (const [what, bytes] of Object.entries(forms)) {
      for (const size of [1_000_003, 4096, 5]) {
        if (size === 5 && bytes.length > 100_000) continue;
        await using temporary = await scratch();
        const into = join(temporary.dir, 'into');
        const input = Readable.from(piecesOf(bytes, size), { objectMode: false });
        const done = await extractTar({ input, into, limits: LIMITS, expect_sha256: sha256 });
        assert.deepEqual(done, { files: 3, bytes: 2_000_006, sha256, skipped: 0 }, what);
        assert.equal(await readFile(join(into, 'a/b.txt'), 'utf8'), 'hello');
        assert.equal((await stat(join(into, 'run'))).mode & 0o7777, 0o755);
        assert.equal((await stat(join(into, 'large'))).size, 2_000_000);
      }
    }
  });

  it('replaces files, keeps the rest, and takes the last of two entries', async () => {
    await using temporary = await scratch();
    await plant(join(temporary.dir, 'into'), {
      a: 'old',
      keep: 'kept',
      link: { link: 'keep' },
      folder: { dir: true },
    });
    const tar = await archive(
      { name: 'a', content: 'first' },
      { name: 'a', content: 'second' },
      { name: 'link', content: 'a file now' },
      { name: 'folder', content: 'was an empty folder' },
      { name: 'b', type: 'symlink', linkname: 'a' },
      { name: 'b', content: 'a file after all' },
      { name: 'c', content: 'a file' },
      { name: 'c', type: 'symlink', linkname: 'a' },
    );
    const { into } = await unpack(temporary.dir, tar);
    const want = {
      a: 'second',
      keep: 'kept',
      link: 'a file now',
      folder: 'was an empty folder',
      b: 'a file after all',
    };
    for (const [name, text] of Object.entries(want))
      assert.equal(await readFile(join(into, name), 'utf8'), text);
    assert.equal(await readlink(join(into, 'c')), 'a');
  });

  it('takes only what is below a prefix, without it', async () => {
    await using temporary = await scratch();
    const tar = await archive(
      { name: 'workspace/a', content: 'x' },
      { name: 'workspace/', type: 'directory' },
      { name: 'other/b' },
    );
    const { into } = await unpack(temporary.dir, tar, { strip_prefix: 'workspace/' });
    assert.deepEqual(await readdir(into), ['a']);
  });

  it('says that a stored archive is corrupt when its digest is another, or it cannot be read', async () => {
    await using temporary = await scratch();
    const tar = await archive({ name: 'a', content: 'x'.repeat(10_000) });
    const stored = zstdCompressSync(tar);
    const damaged = Buffer.from(stored);
    damaged[damaged.length >> 1]! ^= 0xff;
    const expect_sha256 = createHash('sha256').update(tar).digest('hex');
    for (const bytes of [
      zstdCompressSync(await archive({ name: 'a' })),
      damaged,
      stored.subarray(0, -5),
      Buffer.alloc(0),
    ]) {
      await assert.rejects(unpack(temporary.dir, bytes, { expect_sha256 }), (error) => {
        assert.ok(error instanceof DigestMismatch && error instanceof KilnError);
        assert.equal(error.code, 'STORAGE_FAILED');
        assert.match(error.message, /corrupt/);
        return true;
      });
    }
  });

  it('passes on the error of its input, and stops when told to', async () => {
    await using temporary = await scratch();
    const into = join(temporary.dir, 'into');
    const breaking = async function* () {
      yield Buffer.alloc(100);
      throw new Error('the sender is gone');
    };
    const input = Readable.from(breaking());
    await assert.rejects(extractTar({ input, into, limits: LIMITS }), /the sender is gone/);
    const compressed = Readable.from(
      (async function* () {
        yield gzipSync(Buffer.alloc(100)).subarray(0, 15);
        throw new Error('the sender is gone');
      })(),
    );
    await assert.rejects(extractTar({ input: compressed, into, limits: LIMITS }), /the sender is gone/);
    await assert.rejects(extractTar({ input: join(temporary.dir, 'none'), into, limits: LIMITS }), {
      code: 'ENOENT',
    });
    const tar = await archive({ name: 'a' });
    const signal = AbortSignal.abort(new Error('enough'));
    await assert.rejects(unpack(temporary.dir, tar, { signal }), /enough/);
  });
});

describe('a hostile archive', () => {
  const file = (name: string) => header(name, '0');
  const linkTo = (name: string, type: string, target: string) =>
    header(name, type, (b) => void b.write(target, 157, 'latin1'));
  const refused: Record<string, [Buffer[], RegExp]> = {
    'an absolute path': [[file('/etc/cron.d/x')], /"\/etc\/cron\.d\/x" has an absolute path/],
    'a path that leaves': [[file('../x')], /"\.\.\/x" leaves the folder/],
    'a path that leaves later': [[file('a/b/../../../x')], /leaves the folder/],
    'a folder that leaves': [[header('../', '5')], /leaves the folder/],
    'a prefix that leaves': [[header('x', '0', (b) => void b.write('..', 345))], /leaves the folder/],
    'a pax path that leaves': [[pax(paxRecord('path=../x')), file('a')], /leaves the folder/],
    'a pax path with a NUL': [[pax(paxRecord('path=a\0b')), file('a')], /has a NUL/],
    'a GNU long name that leaves': [
      [header('././@LongLink', 'L', sized(6)), padded('../x\0'), file('a')],
      /leaves the folder/,
    ],
    'a hard link to outside': [[linkTo('a', '1', '../outside/secret')], /leaves the folder/],
    'a hard link to an absolute path': [[linkTo('a', '1', '/etc/passwd')], /absolute/],
    'a hard link to what was there before': [
      [linkTo('a', '1', 'old')],
      /hard link to something outside the archive/,
    ],
    'a file through a link of the archive': [
      [linkTo('l', '2', '../outside'), file('l/x')],
      /would replace a folder|in its way/,
    ],
    'a file through a link that was there': [[file('out/x')], /"out\/x" goes through a file or link/],
    'a folder in place of a link': [[header('out/', '5')], /goes through a file or link/],
    'a file below a file': [[file('f'), file('f/x')], /goes through a file or link/],
    'a file in place of a full folder': [[file('d/x'), file('d')], /folder that is not empty/],
    'a link without a target': [[linkTo('l', '2', '')], /without a valid target/],
    'a name that is too long': [
      [pax(paxRecord(`path=${'n'.repeat(300)}`)), file('a')],
      /name that is too long/,
    ],
    'a path that is too long': [
      [pax(paxRecord(`path=${'n/'.repeat(3000)}x`)), file('a')],
      /path that is too long/,
    ],
    'a name that is not UTF-8': [[header('a\xff', '0')], /not valid UTF-8/],
    'a sparse file': [[header('a', 'S')], /kind that is not supported/],
    'a sparse file in pax': [[pax(paxRecord('GNU.sparse.major=1')), file('a')], /kind that is not supported/],
    'an unknown kind': [[header('a', 'Q')], /kind that is not supported/],
    'a folder with content': [[header('a/', '5', sized(512)), Buffer.alloc(512)], /unexpected content/],
    'a pax bomb': [[header('pax', 'x', sized(0o77777777777))], /name header of 8589934591 bytes/],
    'a broken pax header': [[pax('999 path=x\n'), file('a')], /damaged pax header/],
    'a pax header without numbers': [[pax('path=x\n'), file('a')], /damaged pax header/],
    'a pax size that is no number': [[pax(paxRecord('size=-1')), file('a')], /no valid size/],
    'a size that is no number': [[header('a', '0', (b) => void b.write('zzz', 124))], /without a size/],
    'a size beyond counting': [[header('a', '0', (b) => void b.fill(0xff, 124, 136))], /without a size/],
    'a wrong checksum': [[Buffer.alloc(512, 'x')], /not a tar archive/],
    'no end': [[file('a'), header('b', '0', sized(10))], /cut short/],
  };

  for (const [what, [blocks, message]] of Object.entries(refused)) {
    it(`is refused: ${what}`, async () => {
      await using temporary = await scratch();
      await plant(join(temporary.dir, 'outside'), { secret: 'of the host' });
      await plant(join(temporary.dir, 'into'), { old: 'x', out: { link: '../outside' } });
      const bytes = Buffer.concat([...blocks, what === 'no end' ? Buffer.alloc(0) : END]);
      await assert.rejects(unpack(temporary.dir, bytes), isCode('INVALID_ARCHIVE', message));
      assert.deepEqual(await readdir(join(temporary.dir, 'outside')), ['secret']);
      assert.equal(await readFile(join(temporary.dir, 'outside/secret'), 'utf8'), 'of the host');
      assert.deepEqual((await readdir(temporary.dir)).sort(), ['into', 'outside']);
    });
  }

  it('leaves harmless what is harmless: devices are passed over, links out are only names', async () => {
    await using temporary = await scratch();
    await plant(join(temporary.dir, 'outside'), { secret: 'of the host' });
    const blocks = [
      header('fifo', '6'),
      header('tty', '3'),
      linkTo('up', '2', '../outside/secret'),
      file('up2'),
    ];
    const { into, skipped, files } = await unpack(temporary.dir, Buffer.concat([...blocks, END]));
    assert.deepEqual([skipped, files, await readdir(into)], [2, 2, ['up', 'up2']]);
    assert.equal(await readlink(join(into, 'up')), '../outside/secret');
    const over = Buffer.concat([header('up', '0', sized(3)), padded('new'), END]);
    await unpack(temporary.dir, over);
    assert.equal(await readFile(join(into, 'up'), 'utf8'), 'new');
    assert.equal(await readFile(join(temporary.dir, 'outside/secret'), 'utf8'), 'of the host');
  });

  it('takes hard links between its own files', async () => {
    await using temporary = await scratch();
    const tar = await archive({ name: 'd/a', content: 'x' }, { name: 'b', type: 'link', linkname: 'd/a' });
    const { into } = await unpack(temporary.dir, tar);
    assert.equal(await readFile(join(into, 'b'), 'utf8'), 'x');
  });

  it('is stopped at the limits: bytes, files, folders nobody listed, bombs', async () => {
    const small = { max_bytes: 100_000, max_files: 10 };
    const bomb = await archive({ name: 'zeros', content: Buffer.alloc(40_000_000) });
    const many = await archive(...Array.from({ length: 11 }, (_, n) => ({ name: `f${n}` })));
    const deep = await archive({ name: `${'d/'.repeat(11)}f` });
    const claims = Buffer.concat([header('a', '0', sized(0o7777777777)), Buffer.alloc(512)]);
    for (const bytes of [gzipSync(bomb), zstdCompressSync(bomb), bomb, many, deep, claims]) {
      await using temporary = await scratch();
      await assert.rejects(
        unpack(temporary.dir, bytes, { limits: small }),
        isCode('SOURCE_TOO_LARGE', /limit/),
      );
    }
  });

  it('is refused when it is of another format', async () => {
    await using temporary = await scratch();
    const zip = unpack(temporary.dir, Buffer.from('PK\x03\x04zip zip zip'));
    await assert.rejects(zip, isCode('INVALID_ARCHIVE', /zip; send a tar/));
    await assert.rejects(unpack(temporary.dir, Buffer.from('hello')), isCode('INVALID_ARCHIVE', /cut short/));
    const truncated = gzipSync(await archive({ name: 'a' })).subarray(0, -12);
    await assert.rejects(unpack(temporary.dir, truncated), isCode('INVALID_ARCHIVE', /damaged/));
  });

  it('never writes outside, however its bytes are bent', async () => {
    const honest = await archive(
      { name: 'a/b', content: 'x' },
      { name: 'l', type: 'symlink', linkname: '../outside' },
      { name: 'n'.repeat(150), content: 'y' },
    );
    const bend = fc.array(fc.tuple(fc.nat(honest.length - 1), fc.nat(255)), { minLength: 1, maxLength: 6 });
    await fc.assert(
      fc.asyncProperty(bend, async (changes) => {
        await using temporary = await scratch();
        await mkdir(join(temporary.dir, 'outside'));
        const bytes = Buffer.from(honest);
        for (const [at, value] of changes) bytes[at] = value;
        fixChecksums(bytes);
        await unpack(temporary.dir, bytes).catch((error) => {
          assert.ok(error instanceof KilnError, error.stack);
          assert.ok(['INVALID_ARCHIVE', 'SOURCE_TOO_LARGE'].includes(error.code), error.stack);
        });
        assert.deepEqual(await readdir(join(temporary.dir, 'outside')), []);
        assert.deepEqual((await readdir(temporary.dir)).sort(), ['into', 'outside']);
      }),
      { numRuns: 150 },
    );
  });
});

/** Makes every block that was a header one again, so that the bent bytes are looked at. */
function fixChecksums(tar: Buffer): void {
  for (let at = 0; at + 512 <= tar.length; at += 512) {
    const block = tar.subarray(at, at + 512);
    if (block.toString('latin1', 257, 262) !== 'ustar') continue;
    block.write('        ', 148);
    let sum = 0;
    for (const byte of block) sum += byte;
    block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  }
}

function* piecesOf(bytes: Buffer, size: number): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}
