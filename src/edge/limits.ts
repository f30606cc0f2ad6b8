/** Every limit of the edge, in one place. */
export interface EdgeLimits {
  /** Request line and headers together; more is answered 431. */
  header_bytes: number;
  header_count: number;
  /** A proxied request's body; more is answered 413. */
  body_bytes: number;
  connections: number;
  /** Requests of one connection that wait for the answer before theirs; with so many no more are read. */
  waiting_requests: number;
  /**
   * Requests and WebSockets at one instance at once, each on a connection of its own; more are answered 503. Less than
   * `connections`, so that one app that hangs does not take the whole edge.
   */
  instance_connections: number;
  /** From the first byte of a connection or request to the end of its headers. */
  headers_timeout_ms: number;
  /** For a whole request with its body. */
  request_timeout_ms: number;
  /** How long an idle client connection is kept. */
  keep_alive_ms: number;
  connect_timeout_ms: number;
  /** Silence of an instance before its response headers, once it has the whole request; then 504. */
  first_byte_timeout_ms: number;
  /** In the middle of a response: silence of the instance, or a client that takes nothing; then the client is cut. */
  silence_timeout_ms: number;
  websocket_idle_ms: number;
  /**
   * How long an unused connection to an instance is kept. Shorter than any server's keep-alive that we know of
   * (gunicorn: 2 s), so that a request hardly ever meets a connection the instance is just closing.
   */
  upstream_idle_ms: number;
  /** The route table is read this often even if no notification comes. */
  scan_interval_ms: number;
  feed_timeout_ms: number;
  /** Requests in flight get this long when the edge closes. */
  close_grace_ms: number;
  /** Indexes of static releases kept in memory. */
  site_cache_bytes: number;
  /** Small static files, and compressed forms of static files, kept in memory. */
  file_cache_bytes: number;
  /**
   * How long a request waits for the compressed form of a file that nobody has asked for yet, before it gets the file
   * as it is. Measured on an idle core: 64 KiB take 1.5 ms, 400 KB 8 ms, a megabyte 11 ms (Brotli) or 18 ms (gzip);
   * the megabyte that is not sent takes 80 ms at 100 Mbit/s.
   */
  compression_wait_ms: number;
  /** Static releases kept open at once (one file descriptor each). */
  open_sites: number;
}

export const DEFAULT_LIMITS: EdgeLimits = {
  header_bytes: 32 * 1024,
  header_count: 200,
  body_bytes: 100 * 1024 * 1024,
  connections: 10_000,
  waiting_requests: 32,
  instance_connections: 4_096,
  headers_timeout_ms: 15_000,
  request_timeout_ms: 300_000,
  keep_alive_ms: 65_000,
  connect_timeout_ms: 5_000,
  first_byte_timeout_ms: 60_000,
  silence_timeout_ms: 300_000,
  websocket_idle_ms: 3_600_000,
  upstream_idle_ms: 1_000,
  scan_interval_ms: 5_000,
  feed_timeout_ms: 10_000,
  close_grace_ms: 5_000,
  site_cache_bytes: 256 * 1024 * 1024,
  file_cache_bytes: 64 * 1024 * 1024,
  compression_wait_ms: 20,
  open_sites: 256,
};
