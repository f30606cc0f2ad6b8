import { pipeline, type Readable, Transform, type TransformCallback } from 'node:stream';
import { createZstdDecompress, type ZstdOptions } from 'node:zlib';

/**
 * What a zstd stream holds, all its frames one after the other. Errors of the input end the output too; who lets go of the
 * output lets go of the input.
 */
export function zstdDecoded(input: Readable, options: ZstdOptions = {}): Readable {
  const decoder = createZstdDecompress(options);
  pipeline(input, new ZstdFrames(), decoder, () => {}); // its errors are those of the output
  return decoder;
}

const MAGIC = 0xfd2fb528;
const SKIPPABLE = 0x184d2a50;

/** Is this the magic of a frame that holds no content? There are sixteen: the last four bits are free. */
export const isSkippable = (magic: number) => (magic & ~0xf) >>> 0 === SKIPPABLE;

/** The fields of RFC 8878 that say how long the rest is, and their length in bytes. */
const FIELD_BYTES = { magic: 4, skippable_size: 4, descriptor: 1, block_header: 3 } as const;

/**
 * Hands on each frame for itself, without skippable ones. Node's decoder takes a chunk that holds the end of one frame and the
 * beginning of the next for one with garbage at its end, drops that, and calls the stream complete; but pzstd, `cat` and
 * zstd:chunked image layers make streams of many frames, and so do we.
 */
class ZstdFrames extends Transform {
  #field: keyof typeof FIELD_BYTES = 'magic';
  readonly #bytes = Buffer.alloc(4);
  /** Bytes of the field that were read. */
  #have = 0;
  /** Bytes to pass over before the next field. */
  #pass = 0;
  #is_data = false;
  #checksum_bytes = 0;

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    let from = 0;
    for (let at = 0; at < chunk.length; ) {
      if (this.#pass > 0) {
        const passed = Math.min(this.#pass, chunk.length - at);
        this.#pass -= passed;
        at += passed;
      } else {
        this.#bytes[this.#have++] = chunk[at++]!;
        if (this.#have < FIELD_BYTES[this.#field]) continue;
        this.#have = 0;
        if (this.#field === 'magic') from = at; // the magic itself is handed on when it is known, it may have come in two chunks
        if (!this.#read()) {
          done(damaged('what follows a frame is not a frame'));
          return;
        }
      }
      if (this.#pass > 0 || this.#field !== 'magic') continue;
      if (this.#is_data) this.push(chunk.subarray(from, at));
      this.#is_data = false;
      from = at;
    }
    if (this.#is_data && from < chunk.length) this.push(chunk.subarray(from));
    done();
  }

  override _flush(done: TransformCallback): void {
    // A frame of data that ends early is found by the decoder.
    const is_at_end = this.#field === 'magic' && this.#have === 0 && this.#pass === 0;
    done(is_at_end || this.#is_data ? null : damaged('it ends in the middle of a frame'));
  }

  /** Takes a field; false when it is not what it must be. */
  #read(): boolean {
    const bytes = this.#bytes;
    switch (this.#field) {
      case 'magic': {
        const magic = bytes.readUInt32LE();
        this.#is_data = magic === MAGIC;
        if (this.#is_data) this.push(Buffer.from(bytes));
        this.#field = this.#is_data ? 'descriptor' : 'skippable_size';
        return this.#is_data || isSkippable(magic);
      }
      case 'skippable_size':
        this.#pass = bytes.readUInt32LE();
        this.#field = 'magic';
        return true;
      case 'descriptor': {
        const [descriptor] = bytes as unknown as [number];
        const is_single_segment = (descriptor & 0x20) !== 0;
        const content_size_bytes = [is_single_segment ? 1 : 0, 2, 4, 8][descriptor >> 6]!;
        const dictionary_bytes = [0, 1, 2, 4][descriptor & 3]!;
        this.#pass = (is_single_segment ? 0 : 1) + dictionary_bytes + content_size_bytes;
        this.#checksum_bytes = descriptor & 4 ? 4 : 0;
        this.#field = 'block_header';
        return true;
      }
      case 'block_header': {
        const header = bytes.readUIntLE(0, 3);
        const is_run = ((header >> 1) & 3) === 1; // one byte, repeated
        this.#pass = is_run ? 1 : header >> 3;
        if (header & 1) {
          this.#pass += this.#checksum_bytes;
          this.#field = 'magic';
        }
        return true;
      }
    }
  }
}

/** Named as Node's own errors of damaged zstd are. */
function damaged(why: string): Error {
  return Object.assign(new Error(why), { code: 'ZSTD_error_corruption_detected' });
}
