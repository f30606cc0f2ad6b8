import { z } from '@hono/zod-openapi';
import { defineRoute, ok, opt } from './route.ts';

const tag = 'Sandbox exec';

/** What Linux takes as one argument (MAX_ARG_STRLEN), without its end. */
const COMMAND_BYTES = 128 * 1024 - 1;

const Exec = z.object({
  command: z
    .string()
    .min(1)
    .max(128 * 1024)
    .refine((text) => Buffer.byteLength(text) <= COMMAND_BYTES, {
      message: `must be at most ${COMMAND_BYTES} bytes; write it into a file and run that`,
    }),
  cwd: opt(z.string().max(4096)),
  dir: opt(z.string().max(4096)),
  env: opt(z.record(z.string(), z.string())),
  timeout: opt(z.number().positive().max(3600)).openapi({ description: 'Seconds; 120 unless given.' }),
});
export type ExecBody = z.infer<typeof Exec>;

export const execSandbox = defineRoute({
  id: 'execSandbox',
  method: 'post',
  path: '/sandboxes/{id}/exec',
  tag,
  about: 'Runs a shell command and answers when it has ended; a non-zero exit code is still 200.',
  scope: 'sandboxes:write',
  body: Exec,
  holds: true,
  answers: ok(
    z
      .object({
        stdout: z.string(),
        stderr: z.string(),
        exit_code: z.number().int(),
        duration_ms: z.number(),
        reason: z.string(),
        truncated: z.boolean(),
      })
      .openapi('ExecResult'),
  ),
});

export const streamExec = defineRoute({
  id: 'streamExec',
  method: 'post',
  path: '/sandboxes/{id}/exec/stream',
  tag,
  about: '`event: stdout|stderr` with `{line}` as they come, then `event: exit` with `{exit_code}`.',
  scope: 'sandboxes:write',
  body: Exec,
  idempotent: false,
  answers: { 200: { about: 'Server-sent events.', media: ['text/event-stream'] } },
});
