/** Two artifacts, path by path. */
import { createHash, type Hash } from 'node:crypto';
import { pipeline, type Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import type { Release } from '../domain/release.ts';
import type { Difference, Verification } from '../domain/verification.ts';
import { type TarEntry, TarReader } from '../source/tar-reader.ts';
import { zstdDecoded } from '../source/zstd.ts';
import type { ObjectStore } from '../store/objects/port.ts';
import { readImage } from './oci/store.ts';

const MAX_DIFFERENCES = 200;

export type Comparable = Pick<Release, 'kind' | 'sha256' | 'object_key'> & { objects: ObjectStore };

/** What was stored against what was rebuilt. Reads both in full only when their digests differ. */
export async function compareArtifacts(stored: Comparable, rebuilt: Comparable): Promise<Verification> {
  const digests = { stored_sha256: stored.sha256, rebuilt_sha256: rebuilt.sha256 };
  if (stored.kind === rebuilt.kind && stored.sha256 === rebuilt.sha256)
    return { reproducible: true, ...digests, differences: [], differences_total: 0 };
  const before = await contentsOf(stored);
  const after = await contentsOf(rebuilt);
  const differences: Difference[] = [];
  for (const path of [...new Set([...before.keys(), ...after.keys()])].sort()) {
    const what = difference(before.get(path), after.get(path));
    if (what) differences.push({ path, what });
  }
  return {
    reproducible: false,
    ...digests,
    differences: differences.slice(0, MAX_DIFFERENCES),
    differences_total: differences.length,
  };
}

type Content = Pick<TarEntry, 'type' | 'mode' | 'link'> & { sha256: string };

function difference(a: Content | undefined, b: Content | undefined): Difference['what'] | null {
  if (a === undefined || b === undefined) return a === undefined ? 'added' : 'missing';
  if (a.type !== b.type) return 'type';
  if (a.sha256 !== b.sha256) return 'content';
  if (a.link !== b.link) return 'link';
  return a.mode === b.mode ? null : 'mode';
}

/** Every path of an artifact; of an image, layer by layer (`layer 2: …`) with its configuration, for equal layers nothing. */
async function contentsOf(of: Comparable): Promise<Map<string, Content>> {
  const found = new Map<string, Content>();
  if (of.kind !== 'oci') {
    const compression = of.object_key.endsWith('.zst') ? 'zstd' : 'none';
    await readTar(of.objects, of.object_key, compression, (path, content) => found.set(path, content));
    return found;
  }
  const { manifest, config } = await readImage(of.objects, `sha256:${of.sha256}`);
  found.set('image configuration', plain(JSON.stringify({ ...config, rootfs: null })));
  for (const [index, layer] of manifest.layers.entries()) {
    const key = `blobs/sha256/${layer.digest.slice('sha256:'.length)}`;
    const compression = layer.mediaType.endsWith('gzip')
      ? 'gzip'
      : layer.mediaType.endsWith('zstd')
        ? 'zstd'
        : 'none';
    await readTar(of.objects, key, compression, (path, content) =>
      found.set(`layer ${index}: ${path}`, content),
    );
  }
  return found;
}

function plain(text: string): Content {
  return { type: 'file', mode: 0, link: '', sha256: createHash('sha256').update(text).digest('hex') };
}

async function readTar(
  objects: ObjectStore,
  key: string,
  compression: 'none' | 'gzip' | 'zstd',
  each: (path: string, content: Content) => void,
): Promise<void> {
  let entry: TarEntry | null = null;
  let hash: Hash = createHash('sha256');
  const reader = new TarReader({
    entry: (next) => {
      entry = next;
      hash = createHash('sha256');
    },
    data: (piece) => hash.update(piece),
    entryEnd: () => {
      if (entry)
        each(entry.name, {
          type: entry.type,
          mode: entry.mode,
          link: entry.link,
          sha256: hash.digest('hex'),
        });
    },
  });
  const stored = await objects.get(key);
  const body =
    compression === 'none' ? stored : compression === 'zstd' ? zstdDecoded(stored) : gunzipped(stored);
  for await (const chunk of body) reader.push(chunk as Buffer);
}

function gunzipped(stored: Readable): Readable {
  const decoder = createGunzip();
  pipeline(stored, decoder, () => {}); // its errors are those of the output
  return decoder;
}
