import { BlockList, isIPv4, isIPv6 } from 'node:net';
import { networkInterfaces } from 'node:os';

/**
 * How far away an address is, as seen from this host. `local`: this host itself. `link_local`: the wire it is on,
 * where clouds put their metadata services. `never`: not one host (multicast, broadcast) or not in use.
 */
export type Reach = 'public' | 'private' | 'local' | 'link_local' | 'never';

/**
 * Checked in this order. The ranges for documentation (192.0.2.0/24, 198.51.100.0/24, 203.0.113.0/24,
 * 2001:db8::/32) are left out: nobody's services are there, and test networks use them as public ones.
 */
const IPV4: [Reach, BlockList][] = [
  ['local', subnets('0.0.0.0/8', '127.0.0.0/8')],
  // 168.63.129.16 is where Azure's virtual machines are served from the host below them.
  ['link_local', subnets('169.254.0.0/16', '168.63.129.16/32')],
  ['private', subnets('10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10')],
  ['private', subnets('192.0.0.0/24', '198.18.0.0/15', '192.88.99.0/24')],
  ['never', subnets('224.0.0.0/4', '240.0.0.0/4')],
];
const IPV6: [Reach, BlockList][] = [
  ['local', subnets('::/128', '::1/128')],
  ['link_local', subnets('fe80::/10')],
  // 64:ff9b:1::/48 and Teredo (2001::/32) lead to IPv4 addresses that cannot be told from outside.
  ['private', subnets('fc00::/7', 'fec0::/10', '64:ff9b:1::/48', '2001::/32')],
  ['never', subnets('ff00::/8')],
];
const GLOBAL_IPV6 = subnets('2000::/3');

/** Where IPv6 addresses carry an IPv4 address: prefix, and which of the eight groups it starts at. */
const CARRIERS: [BlockList, number][] = [
  [subnets('::ffff:0:0/96', '::/96', '64:ff9b::/96', '::ffff:0:0:0/96'), 6],
  [subnets('2002::/16'), 1],
];

/** `own` are this host's addresses: a service that listens everywhere answers on each of them. */
export function reachOf(address: string, own: ReadonlySet<string> = ownAddresses()): Reach {
  const text = canonical(address);
  if (text === null) return 'never';
  if (own.has(text)) return 'local';
  if (isIPv4(text)) return IPV4.find(([, list]) => list.check(text, 'ipv4'))?.[0] ?? 'public';
  const found = IPV6.find(([, list]) => list.check(text, 'ipv6'));
  if (found) return found[0];
  const carried = carriedIPv4(text);
  if (carried !== null) return reachOf(carried, own);
  return GLOBAL_IPV6.check(text, 'ipv6') ? 'public' : 'never';
}

/** One spelling for each address, without zone; null for what is no address. */
export function canonical(address: string): string | null {
  const text = address.replace(/^\[(.*)\]$/, '$1').replace(/%.*$/, '');
  if (isIPv4(text)) return text;
  return isIPv6(text) ? new URL(`http://[${text}]`).hostname.slice(1, -1) : null;
}

export function ownAddresses(): Set<string> {
  const all = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  return new Set(all.map((one) => canonical(one.address) ?? one.address));
}

function carriedIPv4(address: string): string | null {
  const carrier = CARRIERS.find(([list]) => list.check(address, 'ipv6'));
  if (!carrier) return null;
  const [high, low] = groups(address).slice(carrier[1]);
  return [high! >> 8, high! & 255, low! >> 8, low! & 255].join('.');
}

/** The eight numbers of a canonical IPv6 address. */
function groups(address: string): number[] {
  const [head = '', tail = ''] = address.split('::');
  const numbers = (text: string) =>
    text === '' ? [] : text.split(':').map((one) => Number.parseInt(one, 16));
  const [first, last] = [numbers(head), numbers(tail)];
  return [...first, ...Array(8 - first.length - last.length).fill(0), ...last];
}

function subnets(...ranges: string[]): BlockList {
  const list = new BlockList();
  for (const range of ranges) {
    const [net, bits] = range.split('/') as [string, string];
    list.addSubnet(net, Number(bits), isIPv4(net) ? 'ipv4' : 'ipv6');
  }
  return list;
}
