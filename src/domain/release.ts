import type { Ownership } from './attribution.ts';

/**
 * An immutable, content-addressed artifact: a static tar served by the edge, an OCI image, or a rootfs layer that runs
 * on the host's own base.
 */
export type ArtifactKind = 'static' | 'rootfs' | 'oci';

export interface ArtifactManifest {
  /** Absent for an image that another tool made. */
  files?: number;
  total_bytes: number;
  entrypoint: string | null;
  /** Object that maps paths to byte ranges of the tar (static only). */
  index_key?: string;
  /** What the release was built on. A rootfs runs only there; an OCI image brings it along. */
  base?: string;
  workdir?: string;
  /** Every object the image consists of besides its manifest (oci only). */
  blob_keys?: string[];
  layers?: number;
  /** Where the image says that it listens, and how a look at its health is taken (oci only). */
  exposed_port?: number | null;
}

export interface Release extends Ownership {
  id: string;
  deployment_id: string;
  version_id: string;
  kind: ArtifactKind;
  /** SHA-256 of the uncompressed tar; of the manifest, for an OCI image. */
  sha256: string;
  object_key: string;
  /** Stored bytes. */
  size_bytes: number;
  manifest: ArtifactManifest;
  start_command: string | null;
  port: number | null;
  /** Digest over source, plan, build-time environment and base: equal means the build may be skipped. */
  reuse_key: string;
  ready_at: Date;
  /** Set once retention has removed the bytes; the row stays. */
  collected_at: Date | null;
  created_at: Date;
}
