/** OCI images as data (image-spec v1.1): what is named by digest, how an image is run. Digests are `sha256:<hex>`. */
export const MEDIA_TYPES = {
  manifest: 'application/vnd.oci.image.manifest.v1+json',
  index: 'application/vnd.oci.image.index.v1+json',
  config: 'application/vnd.oci.image.config.v1+json',
  layer_gzip: 'application/vnd.oci.image.layer.v1.tar+gzip',
  layer_tar: 'application/vnd.oci.image.layer.v1.tar',
  layer_zstd: 'application/vnd.oci.image.layer.v1.tar+zstd',
} as const;

export interface Descriptor {
  mediaType: string;
  digest: string;
  /** Bytes of the blob as stored. */
  size: number;
  annotations?: Record<string, string>;
}

export interface ImageManifest {
  schemaVersion: 2;
  mediaType: string;
  config: Descriptor;
  layers: Descriptor[];
  annotations?: Record<string, string>;
}

/** How a container of the image runs; the names are those of the image-spec. */
export interface ImageRunConfig {
  User?: string;
  /** `3000/tcp` → {} */
  ExposedPorts?: Record<string, object>;
  /** `NAME=value` */
  Env?: string[];
  Entrypoint?: string[] | null;
  Cmd?: string[] | null;
  WorkingDir?: string;
  Labels?: Record<string, string>;
  /** `/data` → {} */
  Volumes?: Record<string, object>;
  StopSignal?: string;
  /** Docker's own extension; durations in nanoseconds. */
  Healthcheck?: {
    Test?: string[];
    Interval?: number;
    Timeout?: number;
    StartPeriod?: number;
    Retries?: number;
  };
}

export interface ImageConfig {
  architecture: string;
  os: string;
  variant?: string;
  created?: string;
  config?: ImageRunConfig;
  rootfs: { type: 'layers'; diff_ids: string[] };
  history?: { created?: string; created_by?: string; comment?: string; empty_layer?: boolean }[];
}
