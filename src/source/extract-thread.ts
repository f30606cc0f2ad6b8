import { createHash } from 'node:crypto';
import { once } from 'node:events';
import type { MessagePort } from 'node:worker_threads';
import { TarReader } from './tar-reader.ts';
import { archiveTooLarge, Unpacker, type Unpacking } from './unpack.ts';

/** The uncompressed tar arrives over `port` in pieces, each answered with its length; null ends it. */
export interface ExtractTask extends Unpacking {
  kind: 'extract';
  port: MessagePort;
}

export interface Extracted {
  /** Files and links written. */
  files: number;
  /** Sum of the contents. */
  bytes: number;
  /** Of the uncompressed tar, whatever follows its end marker included. */
  sha256: string;
  /** Devices and FIFOs passed over. */
  skipped: number;
}

export async function extractInThread(task: ExtractTask): Promise<Extracted> {
  const unpacker = new Unpacker(task);
  const reader = new TarReader(unpacker);
  const digest = createHash('sha256');
  let received = 0;
  const closed = once(task.port, 'close');
  try {
    await new Promise<void>((resolve, reject) => {
      task.port.on('message', (piece: Uint8Array | null) => {
        try {
          if (piece === null) return resolve();
          received += piece.length;
          if (received > task.limits.max_bytes) throw archiveTooLarge(task.limits);
          digest.update(piece);
          reader.push(Buffer.from(piece.buffer, piece.byteOffset, piece.length));
          task.port.postMessage(piece.length);
        } catch (error) {
          reject(error);
        }
      });
      closed.then(() => reject(new Error('the archive was not sent to its end')), reject);
    });
    reader.finish();
    unpacker.finish();
    const { files, bytes, skipped } = unpacker;
    return { files, bytes, skipped, sha256: digest.digest('hex') };
  } finally {
    unpacker.close();
    task.port.close();
  }
}
