import type { Plan, PlanSource } from '../domain/plan.ts';
import type { SettingSources } from './settings.ts';

/** The plan's fields that a setting can decide, with where each value came from. */
export function sourcesOf(sources: SettingSources, plan: Plan): Plan['sources'] {
  const all: Partial<Record<string, PlanSource>> = {
    kind: sources.run_command ?? sources.kind,
    root: sources.root,
    install: sources.install_command,
    build: sources.build_command,
    start: sources.run_command,
    port: sources.port,
    output_path: sources.output_path,
    health_check_path: sources.health_check_path,
    startup_timeout_ms: sources.startup_timeout_ms,
    spa_fallback: sources.spa,
    entrypoint: sources.entrypoint,
  };
  const decided: Plan['sources'] = {};
  for (const [field, source] of Object.entries(all)) {
    if (field === 'entrypoint' ? source : plan.kind === 'dynamic' || !['start', 'port'].includes(field))
      decided[field] = source ?? 'detected';
  }
  return decided;
}
