/** Firecracker's own nouns, as its API document names them: only what Kiln sends and reads. */

export interface MachineConfiguration {
  /** 1, or an even number up to 32. */
  vcpu_count: number;
  mem_size_mib: number;
  smt?: boolean;
  track_dirty_pages?: boolean;
}

export interface BootSource {
  /** An uncompressed ELF kernel. */
  kernel_image_path: string;
  initrd_path?: string;
  boot_args?: string;
}

export interface RateLimiter {
  bandwidth?: TokenBucket;
  ops?: TokenBucket;
}

export interface TokenBucket {
  size: number;
  refill_time: number;
  one_time_burst?: number;
}

export interface Drive {
  drive_id: string;
  path_on_host: string;
  is_root_device: boolean;
  is_read_only: boolean;
  cache_type?: 'Unsafe' | 'Writeback';
  io_engine?: 'Sync' | 'Async';
  rate_limiter?: RateLimiter;
}

export interface NetworkInterface {
  iface_id: string;
  /** The tap device. */
  host_dev_name: string;
  guest_mac?: string;
  rx_rate_limiter?: RateLimiter;
  tx_rate_limiter?: RateLimiter;
}

export interface Vsock {
  guest_cid: number;
  uds_path: string;
}

export interface Logger {
  log_path: string;
  level?: 'Error' | 'Warning' | 'Info' | 'Debug' | 'Trace' | 'Off';
  show_level?: boolean;
}

export interface Metrics {
  metrics_path: string;
}

export interface Serial {
  serial_out_path?: string;
  /** Output beyond it is dropped by Firecracker. */
  rate_limiter?: TokenBucket;
}

export interface SnapshotCreate {
  snapshot_type: 'Full' | 'Diff';
  snapshot_path: string;
  mem_file_path: string;
}

export interface SnapshotLoad {
  snapshot_path: string;
  mem_backend: { backend_type: 'File' | 'Uffd'; backend_path: string };
  resume_vm?: boolean;
  track_dirty_pages?: boolean;
  /** x86_64 only: the guest's clock goes on with the time that passed since the snapshot. */
  clock_realtime?: boolean;
  vsock_override?: { uds_path: string };
  network_overrides?: { iface_id: string; host_dev_name: string }[];
}

export interface InstanceInfo {
  id: string;
  app_name: string;
  state: 'Not started' | 'Running' | 'Paused';
  vmm_version: string;
}
