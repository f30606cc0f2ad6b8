import { z } from '@hono/zod-openapi';

/** The build plan as stored with a version (domain/plan.ts). */
export const Plan = z
  .object({
    mode: z.enum(['dockerfile', 'auto', 'static', 'explicit']),
    mode_reason: z.string(),
    ecosystem: z.string().nullable(),
    framework: z.string().nullable(),
    kind: z.enum(['static', 'dynamic']),
    root: z.string(),
    install: z.array(z.string()),
    build: z.array(z.string()),
    start: z.string().nullable(),
    port: z.number().nullable(),
    output_path: z.string(),
    spa_fallback: z.string().nullable(),
    build_env: z.record(z.string(), z.string()),
    run_env: z.record(z.string(), z.string()),
    health_check_path: z.string(),
    startup_timeout_ms: z.number(),
    toolchains: z.array(
      z.object({ name: z.string(), version: z.string().nullable(), source: z.string().nullable() }),
    ),
    evidence: z.array(
      z.object({ file: z.string(), line: z.number().nullable(), found: z.string(), follows: z.string() }),
    ),
    also_matched: z.array(z.object({ rule: z.string(), lost_because: z.string() })),
    sources: z.record(z.string(), z.string()),
    would_change: z.array(z.string()),
    warnings: z.array(z.string()),
  })
  .openapi('Plan');
