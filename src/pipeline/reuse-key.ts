import { createHash } from 'node:crypto';
import type { Plan } from '../domain/plan.ts';

/** Fields of the plan that a release's bytes depend on; one that is not there says nothing. */
const DECISIVE = [
  ...(['dockerfile', 'mode', 'kind', 'root', 'install', 'build', 'start', 'port'] as const),
  ...(['output_path', 'spa_fallback', 'build_env', 'run_env'] as const),
];

/**
 * Digest over everything that decides a release's bytes: equal keys mean the stored release may be used without a
 * build. What only explains the plan, or only concerns how it runs and is probed, is left out.
 */
export function reuseKey(of: {
  source_sha256: string;
  plan: Plan;
  build_env: Record<string, string>;
  base: string;
}): string {
  const decisive = {
    source: of.source_sha256,
    base: of.base,
    plan: Object.fromEntries(DECISIVE.map((field) => [field, of.plan[field]])),
    build_env: of.build_env,
  };
  return createHash('sha256').update(canonicalJson(decisive)).digest('hex');
}

/** JSON with object keys in byte order, so that equal values give equal text. */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  if (value === null || typeof value !== 'object') return JSON.stringify(value) ?? 'null';
  const entries = Object.entries(value).filter(([, v]) => v !== undefined);
  entries.sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${entries.map(([k, v]) => `${JSON.stringify(k)}:${canonicalJson(v)}`).join(',')}}`;
}
