/** What code nobody has read may reach over the network while it is built. */

/**
 * `none`: nothing. `registries`: hosts in `allow` only. `open`: every public host. Never the host's loopback,
 * link-local (169.254.169.254) or private ranges, unless `allow` names the host or address itself.
 * Enforced by a forward proxy (HTTP and CONNECT) which is the only way out of the machine.
 */
export interface NetworkPolicy {
  mode: 'none' | 'registries' | 'open';
  /** `host`, `*.host` or `host:port`, lower case. */
  allow: readonly string[];
}

export const OPEN_NETWORK: NetworkPolicy = { mode: 'open', allow: [] };

/** One host that a machine asked for. */
export interface HostContact {
  host: string;
  port: number;
  connections: number;
  /** Null when it was let through; else why not. */
  refused: string | null;
  bytes_in: number;
  bytes_out: number;
}

/** The way out of one machine: a forward proxy on a Unix socket. The driver brings the machine's connections to it. */
export interface Egress {
  socket_path: string;
  contacts(): HostContact[];
  close(): Promise<void>;
}

export interface EgressOptions {
  policy: NetworkPolicy;
  /** Where the proxy's socket is made. */
  socket_path: string;
  /** A line for the machine's log, the first time a host is refused. */
  on_refused: (line: string) => void;
}

/** Environment of a machine that reaches the proxy at this URL; everything that speaks HTTP reads one of these. */
export function proxyEnvironment(url: string): Record<string, string> {
  return {
    ...{ http_proxy: url, https_proxy: url, HTTP_PROXY: url, HTTPS_PROXY: url },
    ...{
      npm_config_proxy: url,
      npm_config_https_proxy: url,
      no_proxy: 'localhost,127.0.0.1,::1',
      NO_PROXY: 'localhost,127.0.0.1,::1',
    },
  };
}
