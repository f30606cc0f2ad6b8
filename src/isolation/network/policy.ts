/** What code nobody has read may reach over the network while it is built. */
import type { Socket } from 'node:net';
import type { ContactedHost } from '../../domain/build-report.ts';
import type { HostNetwork } from './host-network.ts';

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
export type HostContact = ContactedHost;

/** The way out of one machine: a forward proxy on a Unix socket. The driver brings the machine's connections to it. */
export interface Egress {
  /** Null when it was opened without; then only `serve` brings connections. */
  socket_path: string | null;
  /** A connection of the machine that came another way. */
  serve(socket: Socket): void;
  /** A connection whose target is settled already: if the policy lets it, bytes go both ways; else it ends. */
  relay(socket: Socket, target: { host: string; port: number }): void;
  /** What was asked for so far; stays readable after `close`. */
  contacts(): HostContact[];
  close(): Promise<void>;
}

export interface EgressOptions {
  policy: NetworkPolicy;
  /** Where the proxy's socket is made (the kernel takes at most 107 bytes); null for none. */
  socket_path: string | null;
  /** A line for the machine's log, the first time a host is refused or cannot be reached. */
  on_refused: (line: string) => void;
  /** `readHostNetwork`: registries and the proxy that the host's own settings name. Default: none. */
  host?: HostNetwork;
  /** Every address of a name, in order of preference. Default: the host's own resolver. */
  resolve?: (name: string) => Promise<string[]>;
  limits?: Partial<EgressLimits>;
}

export interface EgressLimits {
  /** At once. */
  connections: number;
  header_bytes: number;
  /** For the head of a request to arrive. */
  header_ms: number;
  /** To reach a host, names and proxies on the way included. */
  connect_ms: number;
  /** A connection on which nothing moves is ended. */
  idle_ms: number;
  /** The same, once one side has sent everything it had: it may be gone, which nobody can tell from outside. */
  half_open_ms: number;
  /** All traffic of the machine together, both ways; null for no limit. */
  total_bytes: number | null;
}

export const EGRESS_LIMITS: EgressLimits = {
  connections: 512,
  header_bytes: 64 * 1024,
  header_ms: 30_000,
  connect_ms: 20_000,
  idle_ms: 300_000,
  half_open_ms: 30_000,
  total_bytes: null,
};

/**
 * Environment of a machine that reaches the proxy at this URL. Most of what speaks HTTP reads the first lines;
 * yarn from version 2 on, Node's own `fetch`, and everything on a Java machine (Maven, Gradle) need their own.
 */
export function proxyEnvironment(url: string): Record<string, string> {
  const { hostname, port } = new URL(url);
  const java = ['http', 'https'].flatMap((scheme) => [
    `-D${scheme}.proxyHost=${hostname}`,
    `-D${scheme}.proxyPort=${port}`,
  ]);
  return {
    ...{ http_proxy: url, https_proxy: url, HTTP_PROXY: url, HTTPS_PROXY: url },
    ...{ no_proxy: 'localhost,127.0.0.1,::1', NO_PROXY: 'localhost,127.0.0.1,::1' },
    ...{ npm_config_proxy: url, npm_config_https_proxy: url, npm_config_noproxy: 'localhost,127.0.0.1,::1' },
    ...{ YARN_HTTP_PROXY: url, YARN_HTTPS_PROXY: url, PIP_PROXY: url, NODE_USE_ENV_PROXY: '1' },
    JAVA_TOOL_OPTIONS: [...java, '-Daether.connector.http.useSystemProperties=true'].join(' '),
  };
}
