/** How a version runs and is gated; frozen with the version. Units are in the names. */
export interface RunSettings {
  port: number | null;
  health_check_path: string;
  startup_timeout_ms: number;
  grace_ms: number;
  probe_timeout_ms: number;
  probe_interval_ms: number;
  replicas: number;
  memory_bytes: number;
}
