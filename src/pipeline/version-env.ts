/** The environment frozen with a version, sealed in its row. */
import type { Vault } from '../store/vault.ts';

export interface VersionEnv {
  vars: Record<string, string>;
  /** Names whose values are redacted in every log. */
  secret_names: string[];
}

const context = (version_id: string, what: 'run' | 'build') => `version:${version_id}:${what}`;

export function sealEnv(vault: Vault, version_id: string, what: 'run' | 'build', env: VersionEnv): string {
  return vault.seal(JSON.stringify(env), context(version_id, what));
}

export function openEnv(vault: Vault, version_id: string, what: 'run' | 'build', sealed: string): VersionEnv {
  return JSON.parse(vault.open(sealed, context(version_id, what))) as VersionEnv;
}

export function secretValues(...envs: VersionEnv[]): string[] {
  return [...new Set(envs.flatMap((env) => env.secret_names.map((name) => env.vars[name] ?? '')))].filter(
    (value) => value !== '',
  );
}
