import { z } from '@hono/zod-openapi';

/** Why a publish, a build or an instance failed, as data (domain/failure.ts). */
export const Failure = z
  .object({
    stage: z.string(),
    code: z.string(),
    message: z.string(),
    next_step: z.string(),
    retryable: z.boolean(),
    fault: z.enum(['user', 'engine', 'caller']),
    exit_code: z.number().nullable(),
    signal: z.string().nullable(),
    out_of_memory: z.boolean(),
    last_probe: z
      .object({
        at: z.string(),
        status: z.number().nullable(),
        error: z.string().nullable(),
        location: z.string().nullable(),
        duration_ms: z.number(),
      })
      .nullable(),
    listening: z.array(z.object({ address: z.string(), port: z.number() })),
    log_tail: z.array(z.string()),
  })
  .openapi('Failure');
