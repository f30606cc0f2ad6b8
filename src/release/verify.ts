/**
 * Is an artifact stored and whole, an image with all its blobs, a site with its index? Read in full once; unchanged bytes
 * on disk are not read again.
 */
import { createHash } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { KilnError } from '../domain/errors.ts';
import type { ArtifactManifest } from '../domain/release.ts';
import { zstdDecoded } from '../source/zstd.ts';
import type { ObjectStore } from '../store/objects/port.ts';
import { hexOf } from './oci/manifest.ts';
import { blobKey, readImage } from './oci/store.ts';
import { readFileIndex, type StaticFile } from './static-site.ts';

export type Verdict = 'whole' | 'gone' | 'corrupt';

/** A stored object and its digest; of a release also what its manifest says of its files. */
export interface Verifiable {
  object_key: string;
  sha256: string;
  manifest?: Pick<ArtifactManifest, 'index_key' | 'files'>;
}

export interface Verifier {
  verify(stored: Verifiable): Promise<Verdict>;
  /** It was corrupt when it was last verified: to be read before it is used again. */
  isDoubted(object_key: string): boolean;
}

/** Remembers at most this many verdicts, each with the size and times of the files it was given for. */
const REMEMBERED = 10_000;

export function makeVerifier(objects: ObjectStore): Verifier {
  const seen = new Map<string, string>();
  const doubted = new Set<string>();
  const verifyObject = async (stored: Verifiable): Promise<Verdict> => {
    const { object_key, manifest } = stored;
    const index_key = manifest?.index_key ?? null;
    for (const key of [object_key, index_key])
      if (key !== null && (await objects.head(key)) === null) return 'gone';
    const marks = [await fingerprint(objects, object_key)];
    if (index_key !== null) marks.push(await fingerprint(objects, index_key));
    const mark = marks.includes(null) ? null : marks.join(' ');
    const name = index_key ?? object_key;
    if (mark !== null && seen.get(name) === mark) return 'whole';
    if (!(await isWhole(objects, stored))) {
      doubted.add(object_key);
      return 'corrupt';
    }
    doubted.delete(object_key);
    if (mark !== null) {
      if (seen.size >= REMEMBERED) seen.clear();
      seen.set(name, mark);
    }
    return 'whole';
  };
  return {
    isDoubted: (object_key) => doubted.has(object_key),
    async verify(release) {
      const verdict = await verifyObject(release);
      if (verdict !== 'whole' || !isImage(release)) return verdict;
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
function isImage({ object_key, sha256 }: Verifiable): boolean {
  return object_key === blobKey(`sha256:${sha256}`);
}

async function partsOfImage(objects: ObjectStore, sha256: string): Promise<Verifiable[] | Verdict> {
  try {
    const { manifest } = await readImage(objects, `sha256:${sha256}`);
    return [manifest.config, ...manifest.layers].map(({ digest }) => ({
      object_key: blobKey(digest),
      sha256: hexOf(digest),
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

async function isWhole(objects: ObjectStore, { object_key, sha256, manifest }: Verifiable): Promise<boolean> {
  const hash = createHash('sha256');
  try {
    const index = manifest?.index_key ? await readFileIndex(objects, manifest.index_key) : null;
    if (index !== null && index.size !== (manifest?.files ?? index.size)) return false;
    const files = new FilesOfTar([...(index?.values() ?? [])]);
    const stored = await objects.get(object_key);
    for await (const chunk of object_key.endsWith('.zst') ? zstdDecoded(stored) : stored) {
      hash.update(chunk as Buffer);
      files.push(chunk as Buffer);
    }
    return hash.digest('hex') === sha256 && files.areWhole();
  } catch {
    return false;
  }
}

/** Holds what an index says of the files in a tar against the tar, as it is read. */
class FilesOfTar {
  readonly #files: StaticFile[];
  #next = 0;
  #hash = createHash('sha256');
  #position = 0;
  #is_wrong = false;

  constructor(files: StaticFile[]) {
    this.#files = files.sort((a, b) => a.offset - b.offset || a.size - b.size);
  }

  push(chunk: Buffer): void {
    const end = this.#position + chunk.length;
    for (let file = this.#files[this.#next]; file && file.offset <= end; file = this.#files[this.#next]) {
      const from = Math.max(0, file.offset - this.#position);
      const to = file.offset + file.size - this.#position;
      this.#hash.update(chunk.subarray(from, to));
      if (to > chunk.length) break;
      this.#is_wrong ||= this.#hash.digest('hex') !== file.sha256;
      this.#hash = createHash('sha256');
      this.#next++;
    }
    this.#position = end;
  }

  areWhole(): boolean {
    return !this.#is_wrong && this.#next === this.#files.length;
  }
}
