import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { findProgram } from '../../program.ts';
import { elfKernel, unpackKernel } from './kernel.ts';
import { unpackLz4 } from './lz4.ts';

const ELF = Buffer.concat([Buffer.from('\x7fELF', 'latin1'), Buffer.alloc(300_000, 'kernel')]);

/** Boot sector, one setup sector, and the payload 100 bytes into the rest, as the kernel's build lays it out. */
function bzImage(payload: Buffer): Buffer {
  const image = Buffer.concat([Buffer.alloc(2 * 512 + 100), payload, Buffer.alloc(64)]);
  image[0x1f1] = 1;
  image.write('HdrS', 0x202, 'latin1');
  image.writeUInt16LE(0x20f, 0x206);
  image.writeUInt32LE(100, 0x248);
  image.writeUInt32LE(payload.length, 0x24c);
  return image;
}
const size = Buffer.alloc(4);
size.writeUInt32LE(ELF.length);

describe('kernels for Firecracker', () => {
  let dir: string;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'kiln-kernel-'));
  });
  after(() => rm(dir, { recursive: true, force: true }));

  it('are unpacked from a bzImage, whatever it was compressed with', async (t) => {
    assert.deepEqual(await unpackKernel(bzImage(ELF)), ELF);
    assert.deepEqual(await unpackKernel(bzImage(gzipSync(ELF))), ELF);
    assert.deepEqual(await unpackKernel(bzImage(Buffer.concat([zstdCompressSync(ELF), size]))), ELF);
    if (findProgram('xz') === null) return t.skip('xz is not installed');
    const xz = execFileSync('xz', ['--check=crc32', '--stdout'], { input: ELF });
    assert.deepEqual(await unpackKernel(bzImage(Buffer.concat([xz, size]))), ELF);
  });

  it('an ELF kernel is taken as it is; another is unpacked once', async () => {
    const [elf, packed, cache] = [join(dir, 'vmlinux'), join(dir, 'vmlinuz'), join(dir, 'cache')];
    await writeFile(elf, ELF);
    await writeFile(packed, bzImage(gzipSync(ELF)));
    assert.equal(await elfKernel(elf, cache), elf);
    const [first, second] = await Promise.all([elfKernel(packed, cache), elfKernel(packed, cache)]);
    assert.equal(first, second);
    assert.equal(await elfKernel(packed, cache), first);
    assert.deepEqual(await readFile(first), ELF);
    assert.equal((await readdir(cache)).length, 1);
  });

  it('lz4: literals, copies, runs and long lengths; broken blocks are errors', () => {
    const frame = (...blocks: number[][]) => {
      const parts = blocks.map((block) => {
        const length = Buffer.alloc(4);
        length.writeUInt32LE(block.length);
        return Buffer.concat([length, Buffer.from(block)]);
      });
      return Buffer.concat([Buffer.from('02214c18', 'hex'), ...parts]);
    };
    const text = (payload: Buffer) => unpackLz4(payload, 1e6).toString('latin1');
    const abc = [97, 98, 99];
    assert.equal(text(frame([0x30, ...abc])), 'abc');
    assert.equal(text(frame([0x32, ...abc, 3, 0, 0x10, 33])), 'abcabcabc!');
    // A run: copy from one byte back, 15 + 255 + 10 + 4 bytes long.
    assert.equal(text(frame([0x1f, 97, 1, 0, 255, 10, 0x10, 98])), `${'a'.repeat(285)}b`);
    assert.equal(text(frame([0x30, ...abc], [0x30, ...abc])), 'abcabc');
    // 17 literals, the length in two bytes; the unpacked length at the end is no block.
    const long = frame([0xf0, 2, ...Array(17).fill(120)]);
    assert.equal(text(Buffer.concat([long, Buffer.from([17, 0, 0, 0])])), 'x'.repeat(17));
    for (const broken of [
      [0x40, ...abc],
      [0x32, ...abc, 9, 0, 0],
      [0x32, ...abc, 0, 0, 0],
      [0xf0, 255],
    ])
      assert.throws(() => unpackLz4(frame(broken), 1e6), /lz4: /);
    assert.throws(() => unpackLz4(frame([0x30, ...abc]), 2), /more than 2 bytes/);
  });

  it('what is no kernel is an error that says so', async () => {
    const cases: [Buffer, RegExp][] = [
      [Buffer.from('MZ'), /neither an ELF file nor a bzImage/],
      [bzImage(ELF).subarray(0, 2000), /cut short/],
      [bzImage(gzipSync('text')), /no ELF file/],
      [bzImage(Buffer.from('BZh9 and more')), /not known here \(425a68/],
    ];
    for (const [image, words] of cases) await assert.rejects(unpackKernel(image), words);
    const old = bzImage(ELF);
    old.writeUInt16LE(0x207, 0x206);
    await assert.rejects(unpackKernel(old), /older than 2.08/);
  });
});
