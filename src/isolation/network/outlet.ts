import type { ChildProcess } from 'node:child_process';
import { Server, type Socket } from 'node:net';
import { join } from 'node:path';
import type { MachineSpec } from '../driver.ts';
import { openEgress } from './egress.ts';
import type { HostNetwork } from './host-network.ts';
import { type HostContact, OPEN_NETWORK, proxyEnvironment } from './policy.ts';
import { loopbackServices } from './rules.ts';

/**
 * How a machine with a network namespace of its own reaches its proxy, without a process in between: before the
 * command starts, a short run of Node inside listens on the machine's loopback, hands the listening socket to the
 * engine over its IPC channel, and is gone. From then on the engine itself accepts what comes to that socket;
 * it lives in the machine's network although it is held outside, and nothing inside can be killed or counted.
 *
 * Services on the host's own loopback that its operator named (a package mirror) have a socket each, at the same port of
 * the machine's loopback: nobody asks a proxy for what is on localhost.
 */
export interface Outlet {
  /** For `node -e`, before the command: about 40 ms of processor time. */
  listen_code: string;
  /** Takes the listening socket when it comes. */
  attach(child: ChildProcess): void;
  contacts(): HostContact[];
  close(): Promise<void>;
}

const PORT = 3128;
const PROXY_URL = `http://127.0.0.1:${PORT}`;
/** Where a machine sees Kiln's own Node; the app's is another, or none. */
export const NODE_INSIDE = '/kiln/node';
/** Teaches built-in `fetch` of an old Node about proxies; where it is on the host and in a machine. */
export const FETCH_PROXY = {
  from: join(import.meta.dirname, 'fetch-proxy.cjs'),
  to: '/kiln/fetch-proxy.cjs',
} as const;
/** Descriptor of the channel; closed before the command starts. */
export const CHANNEL_FD = 5;
const MOST_RELAYS = 8;

/**
 * Sends a socket per port, that of the proxy last. Of the others one that cannot be had is left out. `process.send` is
 * there because NODE_CHANNEL_FD says where.
 */
const listenCode = (ports: readonly number[]) =>
  `const p=${JSON.stringify(ports)},l=p.length,go=(i)=>{const s=require('net').createServer();if(i<l)s.on('error',()=>go(i+1));` +
  `s.listen(i<l?p[i]:${PORT},'127.0.0.1',()=>process.send(i,s,()=>i<l?go(i+1):process.exit()))};go(0)`;

export async function openOutlet(spec: MachineSpec, host: HostNetwork): Promise<Outlet> {
  const policy = spec.network ?? OPEN_NETWORK;
  const relayed = loopbackServices(policy, host.registries)
    .filter(({ port }) => port !== PORT)
    .slice(0, MOST_RELAYS);
  const egress = await openEgress({
    ...{ policy, socket_path: null, host },
    on_refused(line) {
      try {
        spec.on_output('stderr', Buffer.from(`[kiln] ${line}\n`));
      } catch {
        // A log must never change the outcome (I12).
      }
    },
  });
  const servers = new Map<unknown, Server>();
  let closed = false;
  function attach(child: ChildProcess): void {
    child.on('message', (index: unknown, handle: unknown) => {
      const target = typeof index === 'number' ? relayed[index] : undefined;
      const known = target !== undefined || index === relayed.length;
      // One socket each, no more.
      if (known && !servers.has(index) && !closed && handle instanceof Server) {
        servers.set(index, handle);
        handle.on('error', () => undefined);
        handle.on('connection', (socket: Socket) =>
          target === undefined ? egress.serve(socket) : egress.relay(socket, target),
        );
      } else if (handle instanceof Server) handle.close();
      else (handle as Socket | undefined)?.destroy?.();
      if (target === undefined && child.connected) child.disconnect();
    });
  }
  return {
    listen_code: listenCode(relayed.map(({ port }) => port)),
    attach,
    contacts: egress.contacts,
    async close() {
      closed = true;
      for (const server of servers.values()) server.close();
      await egress.close();
    },
  };
}

/**
 * An environment in which every program finds the proxy; what the app says about proxies cannot work here.
 * `node_version` is that of the machine's own Node, null without one.
 */
export function withProxy(env: Record<string, string>, node_version: string | null): Record<string, string> {
  const proxy = proxyEnvironment(PROXY_URL);
  const joined = (...texts: (string | undefined)[]) => texts.filter(Boolean).join(' ');
  const { ALL_PROXY: _, all_proxy: __, ...rest } = env;
  return {
    ...rest,
    ...proxy,
    JAVA_TOOL_OPTIONS: joined(proxy.JAVA_TOOL_OPTIONS, env.JAVA_TOOL_OPTIONS),
    ...(knowsProxies(node_version)
      ? {}
      : { NODE_OPTIONS: joined(`--require=${FETCH_PROXY.to}`, env.NODE_OPTIONS) }),
  };
}

/** Variables that some shells refuse to have assigned, and that decide nothing of what they run. */
const NOT_ASSIGNED: ReadonlySet<string> = new Set(['UID', 'EUID', 'PPID', 'OPTIND', 'SHELLOPTS', 'BASHOPTS']);

/**
 * An environment in which that of a machine is only kept, for a shell that ends with `RELEASE_SCRIPT`. Until the listening
 * socket was handed over, the launcher's shell holds the channel to the engine, and Node trusts what comes there: it
 * throws, where nobody can catch it, at what is no message. So neither PATH nor LD_PRELOAD may decide what runs before.
 */
export function heldBack(env: Record<string, string>): Record<string, string> {
  let prefix = 'KILN_HELD_';
  while (Object.keys(env).some((name) => name.startsWith(prefix))) prefix += '_';
  const held: Record<string, string> = { PATH: '/usr/bin:/bin' };
  const words: string[] = [];
  for (const [name, value] of Object.entries(env)) {
    if (NOT_ASSIGNED.has(name)) {
      held[name] = value;
      continue;
    }
    const at = `${prefix}${words.length}`;
    held[at] = value;
    words.push(`${name}="$${at}"`);
  }
  const places = words.map((_, at) => `${prefix}${at}`);
  const release = words.length === 0 ? '' : `export ${words.join(' ')}; unset ${places.join(' ')}`;
  return { ...held, KILN_HELD: `unset KILN_HELD; ${release}` };
}

export const RELEASE_SCRIPT = 'eval "$KILN_HELD"';

/** From 22.21 and 24 on Node's own `fetch` reads NODE_USE_ENV_PROXY; 23 has ended without. */
function knowsProxies(node_version: string | null): boolean {
  const [major = 0, minor = 0] = (node_version ?? '99.0').split('.').map(Number);
  return major >= 24 || (major === 22 && minor >= 21);
}
