import { z } from '@hono/zod-openapi';

/** The one error body: nested for clients that read `error.message`, flat for those that read `message`. */
export const ErrorBody = z
  .object({
    error: z.object({
      code: z.string().openapi({ example: 'VALIDATION_ERROR' }),
      message: z.string(),
      request_id: z.string(),
      details: z.record(z.string(), z.unknown()).optional(),
    }),
    message: z.string(),
    code: z.string(),
    request_id: z.string(),
    errors: z.record(z.string(), z.array(z.string())).optional().openapi({
      description: 'Validation only: field name to messages.',
    }),
    retry_after: z.number().int().optional().openapi({ description: '429 only. Seconds.' }),
  })
  .openapi('Error');

export type ErrorBody = z.infer<typeof ErrorBody>;
