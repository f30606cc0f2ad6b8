/** The port for Dockerfile builds: BuildKit behind `buildctl`, a container engine that embeds it, or either in a microVM. */
import type { Limits, MachineExit, SelfTest } from './driver.ts';
import type { NetworkPolicy } from './network/policy.ts';

export interface ImageBuildSpec {
  /** Unique (`mch_…`). */
  id: string;
  deployment_id: string;
  /** The build context: the laid-out source. `.dockerignore` in it is honoured. */
  context_dir: string;
  /** Relative to the context. */
  dockerfile: string;
  /** Stage to build; null for the last. */
  target: string | null;
  /** Build-time environment that is not secret. */
  build_args: Record<string, string>;
  /** Build-time environment that is: offered as `--mount=type=secret,id=NAME`, in no layer and no history. */
  secrets: Record<string, string>;
  /** Timestamps in the image, seconds since 1970. */
  source_date_epoch: number;
  limits: Limits & { time_ms: number };
  network: NetworkPolicy;
  /** A build with the same key sees the cache mounts and layers of earlier ones; null for none. */
  cache_key: string | null;
  /** Where the image goes: a tar file that does not exist yet. */
  out_file: string;
  on_output: (stream: 'stdout' | 'stderr', chunk: Buffer) => void;
  signal: AbortSignal;
}

export interface ImageBuildResult {
  exit: MachineExit;
  /** Layout of `out_file`; null when the build failed. */
  archive: 'oci' | 'docker' | null;
}

export interface ImageBuilder {
  /** For logs: `buildctl`, `docker`, `qemu`, … */
  name: string;
  selfTest(): Promise<SelfTest>;
  /** Rejects only when the build could not be started at all. */
  build(spec: ImageBuildSpec): Promise<ImageBuildResult>;
  /** Removes build caches beyond the limit, oldest first. */
  prune(max_bytes: number): Promise<void>;
}
