import type { Readable } from 'node:stream';
import { createZstdDecompress } from 'node:zlib';

/**
 * What a zstd stream holds. Errors of the input end the output too. (`Readable.compose` would wait for ever when the
 * input ends in the middle of a frame.)
 */
export function zstdDecoded(input: Readable): Readable {
  const decoder = createZstdDecompress();
  input.on('error', (error) => decoder.destroy(error));
  return input.pipe(decoder);
}
