import { canonical, type Reach, reachOf } from './address.ts';
import type { NetworkPolicy } from './policy.ts';
import { PUBLIC_REGISTRIES } from './registries.ts';

/** Where a machine wants to go. The host is a name in lower case or a canonical address. */
export interface Target {
  host: string;
  port: number;
}

export interface Rule {
  host: string;
  /** `*.host`: names below the host, not the host itself. */
  wildcard: boolean;
  /** Null: the web's usual ports. */
  port: number | null;
}

/** Either go ahead, or why not and what the operator could write to allow it. */
export type Verdict = { ok: true } | { ok: false; why: string; allow: string | null };

export interface Rules {
  /** Before the name is resolved. */
  host(target: Target): Verdict;
  /** The addresses it resolved to that may be connected to; if there is none, why. */
  addresses(target: Target, resolved: readonly string[]): { use: string[]; verdict: Verdict };
}

const WEB_PORTS: ReadonlySet<number> = new Set([80, 443, 8080, 8443]);
const NAME = /^(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$/;

/** Throws on an entry that is not `host`, `*.host` or `host:port`. */
export function parseRule(text: string): Rule {
  const match = /^(\*\.)?(\[[^\]]+\]|[^:]+)(?::(\d{1,5}))?$/.exec(text.trim().toLowerCase());
  const bare = canonical(text.trim());
  const host = bare ?? (match ? hostOf(match[2]!) : null);
  const port = bare !== null || match?.[3] === undefined ? null : Number(match[3]);
  if (host === null || port === 0 || (port ?? 1) > 65_535)
    throw new Error(
      `${JSON.stringify(text)} is no network rule: write a host, *.host, host:port or an address`,
    );
  return { host, wildcard: match?.[1] !== undefined, port };
}

/** `host:port` as CONNECT has it; null when it is none. */
export function parseTarget(authority: string): Target | null {
  const match = /^(\[[0-9a-f:.]{2,45}\]|[^:[\]]{1,254}):(\d{1,5})$/i.exec(authority);
  const host = match ? hostOf(match[1]!) : null;
  const port = Number(match?.[2]);
  return host !== null && port >= 1 && port <= 65_535 ? { host, port } : null;
}

export function hostOf(text: string): string | null {
  const address = canonical(text);
  if (address !== null) return address;
  const name = text.toLowerCase().replace(/\.$/, '');
  return NAME.test(name) ? name : null;
}

/** `registries`: what the host's own settings name, which counts as allowed. */
export function makeRules(policy: NetworkPolicy, registries: readonly string[]): Rules {
  const named = [...policy.allow, ...registries].map(parseRule);
  const listed = policy.mode === 'registries' ? [...named, ...PUBLIC_REGISTRIES.map(parseRule)] : named;

  function host(target: Target): Verdict {
    if (policy.mode === 'none') return refuse('builds here have no network', null);
    const rules = listed.filter((rule) => matches(rule, target.host));
    if (rules.some((rule) => portAllowed(rule, target.port))) return { ok: true };
    if (policy.mode === 'registries' && rules.length === 0)
      return refuse('it is neither a package registry nor an allowed host', target.host);
    if (policy.mode === 'open' && WEB_PORTS.has(target.port)) return { ok: true };
    return refuse(`port ${target.port} is not one of the web`, authority(target));
  }

  function addresses(target: Target, resolved: readonly string[]) {
    const mine = named.filter(
      (rule) => matches(rule, target.host) && (rule.port === null || rule.port === target.port),
    );
    const use = resolved.filter((address) => {
      const reach = reachOf(address);
      if (reach === 'public') return true;
      const itself = named.some(
        (rule) =>
          rule.host === canonical(address) && !rule.wildcard && (rule.port ?? target.port) === target.port,
      );
      if (itself) return reach !== 'never';
      return mine.some((rule) => reach === 'private' || (reach === 'local' && !rule.wildcard));
    });
    if (use.length > 0) return { use, verdict: { ok: true } as const };
    const reach = resolved[0] === undefined ? 'never' : reachOf(resolved[0]);
    // A name does not open link-local addresses, and nothing opens those of nobody.
    const allow = { link_local: resolved[0]!, never: null }[reach as string];
    return { use, verdict: refuse(REACH_NAMES[reach], allow === undefined ? target.host : allow) };
  }

  return { host, addresses };
}

const LOOPBACK_NAMES: ReadonlySet<string> = new Set(['localhost', '127.0.0.1', '::1']);

/** Services of the host's own loopback that a policy names with their port; one per port. */
export function loopbackServices(policy: NetworkPolicy, registries: readonly string[]): Target[] {
  if (policy.mode === 'none') return [];
  const services = new Map<number, Target>();
  for (const { host, port } of [...policy.allow, ...registries].map(parseRule))
    if (port !== null && LOOPBACK_NAMES.has(host) && !services.has(port)) services.set(port, { host, port });
  return [...services.values()];
}

const REACH_NAMES: Record<Reach, string> = {
  public: 'its address is public',
  private: 'its address is in a private range',
  local: 'its address is this host itself',
  link_local: 'its address is link-local, where metadata services are',
  never: 'it has no address that can be connected to',
};

function refuse(why: string, allow: string | null): Verdict {
  return { ok: false, why, allow };
}

function matches(rule: Rule, host: string): boolean {
  return rule.wildcard ? host.endsWith(`.${rule.host}`) : host === rule.host;
}

function portAllowed(rule: Rule, port: number): boolean {
  return rule.port === null ? WEB_PORTS.has(port) : rule.port === port;
}

export function authority(target: Target): string {
  return `${target.host.includes(':') ? `[${target.host}]` : target.host}:${target.port}`;
}
