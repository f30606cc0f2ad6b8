/**
 * Object storage: immutable bytes under a key. An object is there whole or not at all; writing the same key
 * twice is harmless because keys are content digests. Drivers: `files.ts`; S3 fills the same port later.
 *
 * Keys (digests are lower-case hex SHA-256 of the *uncompressed tar*; of a blob, of its bytes as stored):
 *   sources/<sha256>.tar.zst      a source snapshot
 *   releases/<sha256>.tar         a static release (not compressed: the edge reads ranges of it)
 *   releases/<sha256>.tar.zst     a rootfs release
 *   releases/<sha256>.index.json  the index of a static release, named by the tar that it is of
 *   blobs/sha256/<sha256>         a blob of an OCI image: layer, configuration or manifest
 */
import type { Readable } from 'node:stream';

export interface ObjectInfo {
  key: string;
  size_bytes: number;
  modified_at: Date;
}

export interface ObjectStore {
  /**
   * Writes the object whole or not at all. Resolves once it is durable. Already there and what its key says: the body is
   * drained or dropped. There and damaged, or under a key without a digest of its bytes: the new one takes its place.
   */
  put(key: string, body: AsyncIterable<Uint8Array>): Promise<{ size_bytes: number; existed: boolean }>;
  /** Moves a finished local file into the store (whole or not at all); the file is gone afterwards. */
  putFile(key: string, path: string): Promise<{ size_bytes: number; existed: boolean }>;
  head(key: string): Promise<ObjectInfo | null>;
  /** `start` inclusive, `end` exclusive, in bytes. Rejects with KilnError ARTIFACT_GONE when the key is not there. */
  get(key: string, range?: { start: number; end: number }): Promise<Readable>;
  /** A local path to read the object from, when the driver has one (the edge uses it for zero-copy reads). */
  localPath(key: string): string | null;
  delete(key: string): Promise<void>;
  list(prefix: string): AsyncIterable<ObjectInfo>;
}
