/** For tests and benches: an object store in memory, and static releases in it. */
import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { pack } from 'tar-stream';
import { KilnError } from '../domain/errors.ts';
import type { ObjectInfo, ObjectStore } from '../store/objects/port.ts';

/** Objects in memory; with a folder, also as local files. */
export class MemoryObjects implements ObjectStore {
  readonly objects = new Map<string, Buffer>();
  readonly #dir: string | null;

  constructor(dir: string | null = null) {
    this.#dir = dir;
  }

  async put(key: string, body: AsyncIterable<Uint8Array>): Promise<{ size_bytes: number; existed: boolean }> {
    const bytes = await buffer(Readable.from(body));
    this.objects.set(key, bytes);
    const local = this.localPath(key);
    if (local !== null) await writeFile(local, bytes);
    return { size_bytes: bytes.length, existed: false };
  }

  async putFile(): Promise<{ size_bytes: number; existed: boolean }> {
    throw new Error('not needed here');
  }

  async head(key: string): Promise<ObjectInfo | null> {
    const bytes = this.objects.get(key);
    return bytes ? { key, size_bytes: bytes.length, modified_at: new Date(0) } : null;
  }

  async get(key: string, range?: { start: number; end: number }): Promise<Readable> {
    const bytes = this.objects.get(key);
    if (bytes === undefined) throw new KilnError('ARTIFACT_GONE', `${key} is not there`);
    return Readable.from([bytes.subarray(range?.start ?? 0, range?.end ?? bytes.length)]);
  }

  localPath(key: string): string | null {
    return this.#dir === null ? null : path.join(this.#dir, key.replaceAll('/', '_'));
  }

  async delete(key: string): Promise<void> {
    this.objects.delete(key);
  }

  async *list(): AsyncIterable<ObjectInfo> {}
}

/** Stores files as a static release the way stage 3 does: an uncompressed tar and its index. */
export async function storeRelease(objects: ObjectStore, files: Record<string, string | Buffer>) {
  const tar = pack();
  const index: Record<string, { offset: number; size: number; sha256: string }> = {};
  let at = 0;
  for (const [name, content] of Object.entries(files)) {
    const bytes = Buffer.from(content);
    tar.entry({ name, mtime: new Date(0) }, bytes);
    index[name] = { offset: at + 512, size: bytes.length, sha256: sha256(bytes) };
    at += 512 + Math.ceil(bytes.length / 512) * 512;
  }
  tar.finalize();
  const bytes = await buffer(tar);
  const digest = sha256(bytes);
  const keys = { object_key: `releases/${digest}.tar`, index_key: `releases/${digest}.index.json` };
  await objects.put(keys.object_key, Readable.from([bytes]));
  await objects.put(keys.index_key, Readable.from([Buffer.from(JSON.stringify({ files: index }))]));
  return { ...keys, sha256: digest };
}

export function sha256(bytes: Buffer | string): string {
  return createHash('sha256').update(bytes).digest('hex');
}
