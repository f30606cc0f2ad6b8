/**
 * The port for running OCI releases: instances whose whole file system comes from an image. Drivers of machines that
 * start from the host's own files (process, bubblewrap) have no part in this; they run rootfs releases.
 */
import type { Limits, Machine, SelfTest } from './driver.ts';
import type { MachineImage } from './image.ts';

export type RuntimeName = 'docker' | 'qemu';

export interface InstanceSpec {
  /** Unique (`ins_…`); by it the instance is found again after an engine restart. */
  id: string;
  /** Instances of one deployment share a private network, where the driver has such a thing. */
  deployment_id: string;
  image: MachineImage;
  /** Shell command that replaces the image's own entrypoint and command; null: the image's own. */
  command: string | null;
  /** On top of the image's. Holds PORT. */
  env: Record<string, string>;
  /** Host port on 127.0.0.1 that is forwarded to `guest_port` of the instance. */
  host_port: number;
  guest_port: number;
  limits: Limits;
  /** Read-only root with writable /tmp and the image's volumes; only where the app is known to allow it. */
  read_only_root: boolean;
  /** Receives raw output as it comes; must not throw. After an adoption, output since `logs_since`. */
  on_output: (stream: 'stdout' | 'stderr', chunk: Buffer) => void;
}

/** An instance found running after a restart of the engine. */
export type Adoption = Pick<InstanceSpec, 'id' | 'host_port' | 'guest_port' | 'limits' | 'on_output'> & {
  /** Output up to here was seen by the engine that is gone. */
  logs_since: Date;
};

export interface ImageRuntime {
  name: RuntimeName;
  /** Instances go on when the engine ends, and can be adopted by the next. */
  survives_engine: boolean;
  /** Runs something real. */
  selfTest(): Promise<SelfTest>;
  /** Rejects only when the instance could not be started at all. */
  start(spec: InstanceSpec): Promise<Machine>;
  /** The instance, if it still runs; null when it does not. Does not restart anything. */
  adopt(of: Adoption): Promise<Machine | null>;
  /** Lets go without ending: what survives goes on. Afterwards the engine may exit. */
  release(): Promise<void>;
  /**
   * Removes every instance of this data folder except `keep`, and images nobody keeps. Returns their ids. What this object
   * started or adopted itself is its owner's to stop, and may stay.
   */
  sweep(keep: ReadonlySet<string>): Promise<string[]>;
}
