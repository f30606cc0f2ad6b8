/**
 * LZ4 as the kernel's build writes it (the "legacy" frame; Debian's kernels use it): a magic number, then blocks, each
 * with its packed length in front and at most 8 MiB when unpacked. Node has gzip and zstd, but not this.
 */
export const LZ4_LEGACY = 0x184c2102;

const BLOCK_BYTES = 8 * 1024 * 1024;

/** `payload` without whatever follows the frame. */
export function unpackLz4(payload: Buffer, max_bytes: number): Buffer {
  const blocks: Buffer[] = [];
  let [at, total] = [4, 0];
  while (at + 4 <= payload.length) {
    const length = payload.readUInt32LE(at);
    at += 4;
    // The kernel's build appends the unpacked length, which looks like a block that is not there.
    if (length === total || at + length > payload.length) break;
    const block = unpackBlock(payload.subarray(at, at + length));
    at += length;
    total += block.length;
    if (total > max_bytes) throw new Error(`lz4: more than ${max_bytes} bytes`);
    blocks.push(block);
  }
  return Buffer.concat(blocks);
}

/** Sequences of (literals, then a copy of what came before); the last one has literals only. */
function unpackBlock(block: Buffer): Buffer {
  const out = Buffer.allocUnsafe(BLOCK_BYTES);
  let [from, to] = [0, 0];
  const more = (nibble: number): number => {
    let length = nibble;
    for (let byte = nibble === 15 ? 255 : 0; byte === 255; length += byte) {
      byte = block[from++] ?? 256;
      if (byte > 255) throw new Error('lz4: a block is cut short');
    }
    return length;
  };
  while (from < block.length) {
    const token = block[from++]!;
    const literals = more(token >> 4);
    if (from + literals > block.length || to + literals > BLOCK_BYTES)
      throw new Error('lz4: literals run over the end');
    block.copy(out, to, from, from + literals);
    from += literals;
    to += literals;
    if (from === block.length) break;
    if (from + 2 > block.length) throw new Error('lz4: a block is cut short');
    const distance = block.readUInt16LE(from);
    from += 2;
    const length = more(token & 15) + 4;
    if (distance === 0 || distance > to || to + length > BLOCK_BYTES)
      throw new Error('lz4: a copy leads outside the block');
    // Byte by byte where source and target overlap: that is how runs are written.
    if (distance >= length) out.copy(out, to, to - distance, to - distance + length);
    else for (let i = 0; i < length; i++) out[to + i] = out[to + i - distance]!;
    to += length;
  }
  return out.subarray(0, to);
}
