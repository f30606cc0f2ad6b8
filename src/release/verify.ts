/** Is an artifact stored and whole? Read in full once; unchanged bytes on disk are not read again. */
import { createHash } from 'node:crypto';
import { stat } from 'node:fs/promises';
import type { Release } from '../domain/release.ts';
import { zstdDecoded } from '../source/zstd.ts';
import type { ObjectStore } from '../store/objects/port.ts';

export type Verdict = 'whole' | 'gone' | 'corrupt';

export interface Verifier {
  verify(release: Pick<Release, 'object_key' | 'sha256' | 'size_bytes'>): Promise<Verdict>;
}

/** Remembers at most this many verdicts, each with the size and times of the file it was given for. */
const REMEMBERED = 10_000;

export function makeVerifier(objects: ObjectStore): Verifier {
  const seen = new Map<string, string>();
  return {
    async verify(release) {
      const info = await objects.head(release.object_key);
      if (info === null) return 'gone';
      if (info.size_bytes !== release.size_bytes) return 'corrupt';
      const mark = await fingerprint(objects, release.object_key);
      if (mark !== null && seen.get(release.object_key) === mark) return 'whole';
      if ((await digest(objects, release.object_key)) !== release.sha256) return 'corrupt';
      if (mark !== null) {
        if (seen.size >= REMEMBERED) seen.clear();
        seen.set(release.object_key, mark);
      }
      return 'whole';
    },
  };
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
