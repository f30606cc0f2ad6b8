/** A host name of the customer's own. `verified`: control of it was proved; `active`: and it is routed. */
import type { Attribution } from './attribution.ts';

export type DomainState = 'pending' | 'verified' | 'active' | 'failed' | 'removed';
export type RedirectPolicy = 'none' | 'www_to_apex' | 'apex_to_www';

export interface Domain extends Attribution {
  id: string;
  tenant_id: string;
  /** Those of the deployment; null while there is none. */
  workspace_id: string | null;
  project_id: string | null;
  deployment_id: string | null;
  /** Lower case, ASCII (punycode), without a final dot. */
  domain: string;
  state: DomainState;
  redirect_policy: RedirectPolicy;
  verification_token: string;
  /** Why the last verification did not succeed. */
  failure_message: string | null;
  verified_at: Date | null;
  last_checked_at: Date | null;
  removed_at: Date | null;
  created_at: Date;
  updated_at: Date;
}

const LABEL = /^(?!-)[a-z0-9-]{1,63}(?<!-)$/;

/** A public name of at least two labels; null for addresses, wildcards and everything else. `ascii` is punycode. */
export function hostName(ascii: string): string | null {
  const name = ascii.toLowerCase().replace(/\.$/, '');
  const labels = name.split('.');
  if (name.length > 253 || labels.length < 2 || !labels.every((label) => LABEL.test(label))) return null;
  return /^\d+$/.test(labels.at(-1)!) ? null : name;
}

export function isWww(domain: string): boolean {
  return domain.startsWith('www.') && domain.split('.').length > 2;
}

/** Which hosts a proved domain serves, and which it redirects. Proving `a.com` proves `www.a.com`, not the reverse. */
export function hostsOf(of: { domain: string; redirect_policy: RedirectPolicy }): {
  serves: string[];
  redirects: { from: string; to: string }[];
} {
  const { domain, redirect_policy } = of;
  if (redirect_policy === 'none') return { serves: [domain], redirects: [] };
  if (redirect_policy === 'apex_to_www') {
    const www = `www.${domain}`;
    return { serves: [www], redirects: [{ from: domain, to: www }] };
  }
  if (isWww(domain)) return { serves: [], redirects: [{ from: domain, to: domain.slice(4) }] };
  return { serves: [domain], redirects: [{ from: `www.${domain}`, to: domain }] };
}

/** Where the token is looked for: a TXT record below the domain, or the domain itself as an alias. */
export function verificationRecords(
  of: Pick<Domain, 'domain' | 'verification_token'>,
  base_domain: string,
): { cname: { name: string; value: string }; txt: { name: string; value: string } } {
  return {
    cname: { name: of.domain, value: `${of.verification_token}.${base_domain}` },
    txt: { name: `_kiln-verify.${of.domain}`, value: of.verification_token },
  };
}
