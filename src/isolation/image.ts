/**
 * The image port: what drivers need of an OCI image, without knowing where its blobs are kept. `release/oci` implements it.
 */
import type { Readable } from 'node:stream';
import type { ImageConfig, ImageManifest } from '../domain/image.ts';

export interface MachineImage {
  /** Of the manifest: `sha256:<hex>`. */
  digest: string;
  manifest: ImageManifest;
  config: ImageConfig;
  /** A blob as it is stored (a layer may be compressed; its media type says how). */
  blob(digest: string): Promise<Readable>;
  /** What `docker load` takes: a tar of manifest.json, config and layers. Image id = digest of the config. */
  dockerArchive(): Readable;
  /**
   * Paths of read-only squashfs files that make up the root, bottom first: each is laid over those before it, with
   * overlayfs's whiteouts. Made on first use; what several images have below is one file.
   */
  squashfs(): Promise<string[]>;
}
