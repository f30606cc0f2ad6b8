import type { Plan } from '../../domain/plan.ts';

/** A plan with every kind of field filled in. */
export const PLAN: Plan = {
  mode: 'explicit',
  mode_reason: 'The request names commands.',
  ecosystem: null,
  framework: null,
  kind: 'dynamic',
  root: '.',
  install: [],
  build: ['true'],
  start: 'node server.js',
  port: 3000,
  output_path: '.',
  spa_fallback: null,
  build_env: {},
  run_env: {},
  health_check_path: '/',
  startup_timeout_ms: 60_000,
  toolchains: [{ name: 'node', version: '24', source: 'package.json' }],
  evidence: [{ file: 'package.json', line: 1, found: 'start', follows: 'dynamic' }],
  also_matched: [],
  sources: { start: 'request' },
  would_change: [],
  warnings: [],
};
