/** Whether files hold what they should: a stored one what its key says, or another the same bytes. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { zstdDecoded } from '../../source/zstd.ts';

const CHUNK_BYTES = 1024 * 1024;
/** The digest in a key; what is compressed is named by what it unpacks to. An index is named by the tar that it is of. */
const DIGEST = /\/([0-9a-f]{64})(\.tar|\.tar\.zst)?$/;

/** False when the key has no digest of the content, or the file another one. */
export async function isWhatKeySays(key: string, file: string): Promise<boolean> {
  const [, digest, ending] = DIGEST.exec(key) ?? [];
  if (digest === undefined) return false;
  const hash = createHash('sha256');
  const bytes = createReadStream(file, { highWaterMark: CHUNK_BYTES });
  try {
    for await (const chunk of ending === '.tar.zst' ? zstdDecoded(bytes) : bytes)
      hash.update(chunk as Buffer);
  } catch (error) {
    if (isDamage(error)) return false;
    throw error;
  }
  return hash.digest('hex') === digest;
}

/** What cannot be unpacked, or not even read. */
function isDamage(error: unknown): boolean {
  return /^(ZSTD_|Z_|ERR_ZSTD|ERR_ZLIB|EIO$)/.test((error as NodeJS.ErrnoException).code ?? '');
}

/** `other` may be damaged. */
export async function areSameBytes(one: string, other: string): Promise<boolean> {
  await using a = await open(one);
  await using b = await open(other);
  const { size } = await a.stat();
  if (size !== (await b.stat()).size) return false;
  const buffers = [Buffer.allocUnsafe(CHUNK_BYTES), Buffer.allocUnsafe(CHUNK_BYTES)] as const;
  for (let at = 0; at < size; ) {
    const of_a = await a.read(buffers[0], 0, CHUNK_BYTES, at);
    const of_b = await b.read(buffers[1], 0, CHUNK_BYTES, at).catch((error) => {
      if (!isDamage(error)) throw error;
      return { bytesRead: 0 };
    });
    const length = Math.min(of_a.bytesRead, of_b.bytesRead);
    if (length === 0 || buffers[0].compare(buffers[1], 0, length, 0, length) !== 0) return false;
    at += length;
  }
  return true;
}
