import { BlockList, isIP, isIPv4 } from 'node:net';
import type { DriverOptions } from '../driver.ts';
import type { RegistrySettings } from '../registry.ts';
import { reachOf } from './address.ts';
import { hostOf, type Target } from './rules.ts';

/** What the host's own settings say about the way out: whoever configured them allows it. */
export interface HostNetwork {
  /** `host:port` of registries and mirrors that npm, pip, Go… are pointed at. */
  registries: readonly string[];
  /** The next hop to a target, null for a direct connection. */
  upstream(target: Target, scheme: 'http' | 'https'): Upstream | null;
}

/** A proxy that the host itself goes through. */
export interface Upstream {
  host: string;
  port: number;
  tls: boolean;
  /** Value of Proxy-Authorization; never shown to a machine. */
  authorization: string | null;
}

export const DIRECT: HostNetwork = { registries: [], upstream: () => null };

const PROXIES = /^(https?|all|no)_proxy$/i;

export function readHostNetwork(
  host_env: DriverOptions['host_env'],
  settings: RegistrySettings,
): HostNetwork {
  const texts = Object.entries(settings.env)
    .filter(([name]) => !PROXIES.test(name))
    .map(([, value]) => value);
  for (const file of settings.files)
    texts.push(...file.text.split('\n').filter((line) => !/^(https-)?(no)?proxy\s*=/.test(line)));
  const registries = texts.flatMap(namedHosts);
  const sum = /^[a-z0-9.-]+\.[a-z]+/.exec(settings.env.GOSUMDB ?? '')?.[0];
  if (sum !== undefined) registries.push(`${sum}:443`);

  const read = (name: string) => host_env[name.toLowerCase()] || host_env[name] || '';
  const all = read('ALL_PROXY');
  const proxies = {
    http: parseUpstream(read('HTTP_PROXY') || all),
    https: parseUpstream(read('HTTPS_PROXY') || all),
  };
  const direct = noProxy(read('NO_PROXY'));
  return {
    registries: [...new Set(registries)],
    upstream: (target, scheme) => (isLoopback(target) || direct(target) ? null : proxies[scheme]),
  };
}

/** Another machine's proxy has a loopback of its own. */
function isLoopback({ host }: Target): boolean {
  return host === 'localhost' || reachOf(host) === 'local';
}

function namedHosts(text: string): string[] {
  return [...text.matchAll(/https?:\/\/[^\s,|"']+/g)].flatMap(([found]) => {
    const url = URL.canParse(found) ? new URL(found) : null;
    if (url === null || hostOf(url.hostname) === null) return [];
    return [`${url.hostname}:${url.port || (url.protocol === 'https:' ? 443 : 80)}`];
  });
}

/** Null for none, and for kinds of proxy that do not speak HTTP. */
function parseUpstream(text: string): Upstream | null {
  const full = text === '' || text.includes('://') ? text : `http://${text}`;
  const url = URL.canParse(full) ? new URL(full) : null;
  if (url === null || !/^https?:$/.test(url.protocol)) return null;
  const user = `${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}`;
  return {
    host: url.hostname.replace(/^\[(.*)\]$/, '$1'),
    port: Number(url.port || (url.protocol === 'https:' ? 443 : 80)),
    tls: url.protocol === 'https:',
    authorization: user === ':' ? null : `Basic ${Buffer.from(user).toString('base64')}`,
  };
}

/** NO_PROXY as curl and Go read it: names with all below them, `host:port`, addresses, ranges, `*`. */
function noProxy(text: string): (target: Target) => boolean {
  const entries = text.toLowerCase().split(/[\s,]+/);
  const ranges = new BlockList();
  for (const entry of entries) {
    const [net = '', bits] = entry.split('/');
    if (bits !== undefined && isIP(net) !== 0)
      ranges.addSubnet(net, Number(bits), isIPv4(net) ? 'ipv4' : 'ipv6');
  }
  return ({ host, port }) => {
    if (isIP(host) !== 0 && ranges.check(host, isIPv4(host) ? 'ipv4' : 'ipv6')) return true;
    return entries.some((entry) => {
      if (entry === '*') return true;
      const match = /^\*?\.?([^:]+|\[[^\]]+\])(?::(\d+))?$/.exec(entry);
      if (!match || (match[2] !== undefined && Number(match[2]) !== port)) return false;
      return host === match[1] || host.endsWith(`.${match[1]}`);
    });
  };
}
