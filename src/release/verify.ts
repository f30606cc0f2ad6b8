/** Is an artifact stored and whole, an image with all its blobs? Read in full once; unchanged bytes on disk are not read again. */
import { createHash } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { KilnError } from '../domain/errors.ts';
import type { Release } from '../domain/release.ts';
import { zstdDecoded } from '../source/zstd.ts';
import type { ObjectStore } from '../store/objects/port.ts';
import { hexOf } from './oci/manifest.ts';
import { blobKey, readImage } from './oci/store.ts';

export type Verdict = 'whole' | 'gone' | 'corrupt';

export interface Verifier {
  verify(release: Pick<Release, 'object_key' | 'sha256' | 'size_bytes'>): Promise<Verdict>;
}

/** Remembers at most this many verdicts, each with the size and times of the file it was given for. */
const REMEMBERED = 10_000;

/** Null: its digest says it all. */
type Stored = Pick<Release, 'object_key' | 'sha256'> & { size_bytes: number | null };

export function makeVerifier(objects: ObjectStore): Verifier {
  const seen = new Map<string, string>();
  const verifyObject = async (stored: Stored): Promise<Verdict> => {
    const info = await objects.head(stored.object_key);
    if (info === null) return 'gone';
    if (stored.size_bytes !== null && info.size_bytes !== stored.size_bytes) return 'corrupt';
    const mark = await fingerprint(objects, stored.object_key);
    if (mark !== null && seen.get(stored.object_key) === mark) return 'whole';
    if ((await digest(objects, stored.object_key)) !== stored.sha256) return 'corrupt';
    if (mark !== null) {
      if (seen.size >= REMEMBERED) seen.clear();
      seen.set(stored.object_key, mark);
    }
    return 'whole';
  };
  return {
    async verify(release) {
      if (!isImage(release)) return verifyObject(release);
      // The size of an image's release is that of all its blobs.
      const verdict = await verifyObject({ ...release, size_bytes: null });
      if (verdict !== 'whole') return verdict;
      const parts = await partsOfImage(objects, release.sha256);
      if (!Array.isArray(parts)) return parts;
      for (const part of parts) {
        const of_part = await verifyObject(part);
        if (of_part !== 'whole') return of_part;
      }
      return 'whole';
    },
  };
}

/** The object of an image is its manifest. */
function isImage({ object_key, sha256 }: Pick<Release, 'object_key' | 'sha256'>): boolean {
  return object_key === blobKey(`sha256:${sha256}`);
}

async function partsOfImage(objects: ObjectStore, sha256: string): Promise<Stored[] | Verdict> {
  try {
    const { manifest } = await readImage(objects, `sha256:${sha256}`);
    return [manifest.config, ...manifest.layers].map(({ digest, size }) => ({
      object_key: blobKey(digest),
      sha256: hexOf(digest),
      size_bytes: size,
    }));
  } catch (error) {
    if (!(error instanceof KilnError)) throw error;
    return error.code === 'ARTIFACT_GONE' ? 'gone' : 'corrupt';
  }
}

/** Null when the store gives no local file: then every verification reads the object. */
async function fingerprint(objects: ObjectStore, key: string): Promise<string | null> {
  const file = objects.localPath(key);
  if (file === null) return null;
  const s = await stat(file, { bigint: true }).catch(() => null);
  return s === null ? null : `${s.ino}:${s.size}:${s.mtimeNs}:${s.ctimeNs}`;
}

async function digest(objects: ObjectStore, key: string): Promise<string | null> {
  const hash = createHash('sha256');
  try {
    const stored = await objects.get(key);
    const body = key.endsWith('.zst') ? zstdDecoded(stored) : stored;
    for await (const chunk of body) hash.update(chunk as Buffer);
    return hash.digest('hex');
  } catch {
    return null;
  }
}
