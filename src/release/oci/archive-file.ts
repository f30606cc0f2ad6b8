/** Writing a tar of streams whose sizes are known: image archives. In Kiln's canonical form, so equal images give equal archives. */
import { Readable } from 'node:stream';
import { END_BYTES, encodeHeader, paddedSize } from '../../source/tar-format.ts';

export interface ArchiveFile {
  name: string;
  size: number;
  open(): Promise<Readable>;
}

export function archiveOf(files: () => AsyncIterable<ArchiveFile>): Readable {
  return Readable.from(written(files()), { objectMode: false, highWaterMark: 1024 * 1024 });
}

async function* written(files: AsyncIterable<ArchiveFile>): AsyncGenerator<Buffer> {
  for await (const file of files) {
    yield encodeHeader('file', file.name, file.size);
    let seen = 0;
    for await (const chunk of await file.open()) {
      seen += chunk.length;
      yield chunk;
    }
    if (seen !== file.size) throw new Error(`${file.name} has ${seen} bytes instead of ${file.size}`);
    yield Buffer.alloc(paddedSize(seen) - seen);
  }
  yield Buffer.alloc(END_BYTES);
}
