import type { Readable } from 'node:stream';
import type { DriverOptions } from '../driver.ts';
import type { MachineImage } from '../image.ts';
import type { BuilderImage } from './builder-image/image.ts';
import type { JobFile } from './guest/job.ts';
import type { WarmOptions } from './pool.ts';

/** Makes a canonical tar of a folder; `source/pack.ts` has it. */
export type Pack = (o: {
  root: string;
  prefix: string;
  extra: JobFile[];
  out_path: string;
  compress: 'none';
  max_bytes: number;
  signal?: AbortSignal;
}) => Promise<{ size_bytes: number }>;

/** Unpacks a tar that may be hostile; `source/extract.ts` has it. */
export type Unpack = (o: {
  input: Readable;
  into: string;
  limits: { max_bytes: number; max_files: number };
}) => Promise<unknown>;

export interface MicrovmOptions extends DriverOptions {
  /** What `kiln builder-image build` made; null: the self-test says how to make it. */
  image: BuilderImage | null;
  /** The same as an OCI image, for releases built on it. Its squashfs is used where given. */
  base_image?: MachineImage | null;
  pack: Pack;
  unpack: Unpack;
  /** Software emulation where KVM does not work: slow, and meant for trying things out. Default false. */
  allow_emulation?: boolean;
  /** Default 2. */
  vcpus?: number;
  /** Builders kept booted for the next builds. Default none: each holds memory while it waits. */
  warm?: WarmOptions;
}
