/** Looking up the records that prove control of a domain. */
import { Resolver as DnsResolver } from 'node:dns/promises';

export interface Resolver {
  /** Values of the TXT records; empty when there are none. Rejects when the DNS does not answer. */
  txt(name: string): Promise<string[]>;
  cname(name: string): Promise<string[]>;
}

const ABSENT = new Set(['ENODATA', 'ENOTFOUND', 'NXDOMAIN']);

export function dnsResolver(): Resolver {
  const dns = new DnsResolver({ timeout: 2000, tries: 2 });
  const orNone = async <T>(looked: Promise<T[]>): Promise<T[]> =>
    looked.catch((error: NodeJS.ErrnoException) => {
      if (ABSENT.has(error.code ?? '')) return [];
      throw error;
    });
  return {
    txt: async (name) => (await orNone(dns.resolveTxt(name))).map((parts) => parts.join('')),
    cname: (name) => orNone(dns.resolveCname(name)),
  };
}
