import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { describe, it } from 'node:test';
import { setImmediate as breathe } from 'node:timers/promises';
import { constants, zstdCompressSync } from 'node:zlib';
import fc from 'fast-check';
import { zstdDecoded } from './zstd.ts';

const frame = (content: Uint8Array, checksum = false) =>
  zstdCompressSync(content, { params: { [constants.ZSTD_c_checksumFlag]: checksum ? 1 : 0 } });

function skippable(content: Uint8Array, kind = 0): Buffer {
  const header = Buffer.alloc(8);
  header.writeUInt32LE(0x184d2a50 + kind, 0);
  header.writeUInt32LE(content.length, 4);
  return Buffer.concat([header, content]);
}

/** In pieces of these lengths, over and over. */
function inPieces(bytes: Buffer, lengths: number[]): Readable {
  const pieces: Buffer[] = [];
  for (let at = 0, n = 0; at < bytes.length; at += lengths[n++ % lengths.length]!)
    pieces.push(bytes.subarray(at, at + lengths[n % lengths.length]!));
  return Readable.from(pieces, { objectMode: false });
}

const ZSTD = (() => {
  try {
    execFileSync('zstd', ['--version'], { stdio: 'ignore' });
    return null;
  } catch {
    return 'there is no zstd program';
  }
})();

describe('a zstd stream', () => {
  it('is the content of all its frames, however it is cut', async () => {
    const part = fc.record({
      content: fc.oneof(
        fc.uint8Array({ maxLength: 2_000 }),
        fc.integer({ min: 0, max: 400_000 }).map((length) => new Uint8Array(length).fill(7)),
      ),
      kind: fc.constantFrom('plain', 'checksum', 'skippable'),
    });
    const lengths = fc.array(fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 10, max: 5_000 })), {
      minLength: 1,
      maxLength: 5,
    });
    await fc.assert(
      fc.asyncProperty(fc.array(part, { minLength: 1, maxLength: 6 }), lengths, async (parts, cut) => {
        const frames = parts.map(({ content, kind }) =>
          kind === 'skippable'
            ? skippable(content, content.length % 16)
            : frame(content, kind === 'checksum'),
        );
        const data = parts.filter(({ kind }) => kind !== 'skippable');
        const stream = Buffer.concat([...frames, frame(new Uint8Array([1]))]);
        const decoded = await buffer(zstdDecoded(inPieces(stream, cut)));
        assert.deepEqual(decoded, Buffer.concat([...data.map(({ content }) => content), Buffer.from([1])]));
      }),
      { numRuns: 150 },
    );
  });

  it('may have raw, repeated and long blocks, and sizes of every width', async () => {
    const noise = Buffer.from(
      Array.from({ length: 300_000 }, (_, i) => Math.imul(i ^ 0x5bd1e995, 0x9e3779b1) >>> 24),
    );
    const contents = [
      noise,
      Buffer.alloc(70_000),
      Buffer.alloc(200, 'ab'),
      Buffer.alloc(0),
      Buffer.from(noise.toString('hex')),
    ];
    const stream = Buffer.concat(contents.map((content) => frame(content)));
    for (const cut of [1_021, 65_536, stream.length])
      assert.ok(
        (await buffer(zstdDecoded(inPieces(stream, [cut])))).equals(Buffer.concat(contents)),
        `cut ${cut}`,
      );
  });

  it('may be of the zstd program, which leaves the size out when it does not know it', {
    skip: ZSTD ?? false,
  }, async () => {
    const made = ['one ', 'two'].map((input) => execFileSync('zstd', ['-q', '-c', '--check'], { input }));
    assert.equal((await buffer(zstdDecoded(Readable.from([Buffer.concat(made)])))).toString(), 'one two');
  });

  it('is refused when it is cut or has something else in it', async () => {
    const two = Buffer.concat([frame(Buffer.alloc(5_000, 'x')), frame(Buffer.from('tail'))]);
    const first = frame(Buffer.alloc(5_000, 'x')).length;
    const broken = {
      'in the first frame': two.subarray(0, first - 1),
      'in the second magic': two.subarray(0, first + 2),
      'in the second frame': two.subarray(0, two.length - 1),
      'in a skippable frame': Buffer.concat([two, skippable(Buffer.alloc(9)).subarray(0, 12)]),
      garbage: Buffer.concat([two, Buffer.from('garbage')]),
    };
    for (const [what, bytes] of Object.entries(broken))
      await assert.rejects(buffer(zstdDecoded(Readable.from([bytes]))), { code: /^Z/ }, what);
  });

  it('ends with the error of its input, and lets go of it', async () => {
    const failing = Readable.from(
      (async function* () {
        yield frame(Buffer.from('x'));
        await breathe();
        throw Object.assign(new Error('gone'), { code: 'EIO' });
      })(),
    );
    await assert.rejects(buffer(zstdDecoded(failing)), { code: 'EIO' });
    const endless = new Readable({ read() {} });
    zstdDecoded(endless).destroy();
    await breathe();
    assert.ok(endless.destroyed);
  });
});
