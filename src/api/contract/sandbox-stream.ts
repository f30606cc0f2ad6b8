import { z } from '@hono/zod-openapi';
import { defineRoute, enveloped, ok } from './route.ts';

const tag = 'Sandboxes';
const stream = { 200: { about: 'Server-sent events.', media: ['text/event-stream'] } };
const LinesQuery = z.object({ lines: z.coerce.number().int().min(1).max(10_000).optional() });

export const getSandboxLogs = defineRoute({
  id: 'getSandboxLogs',
  method: 'get',
  path: '/sandboxes/{id}/logs',
  tag,
  about: 'The newest lines that commands in the sandbox printed; 100 unless told otherwise.',
  scope: 'sandboxes:read',
  query: LinesQuery,
  answers: ok(enveloped(z.object({ sandbox_id: z.string(), lines: z.array(z.string()), logs: z.string() }))),
});

export const streamSandboxLogs = defineRoute({
  id: 'streamSandboxLogs',
  method: 'get',
  path: '/sandboxes/{id}/logs/stream',
  tag,
  about: 'The same as `log_line` frames, and then what comes, until the sandbox is destroyed (`done`).',
  scope: 'sandboxes:read',
  query: LinesQuery,
  answers: stream,
});

export const streamSandboxEvents = defineRoute({
  id: 'streamSandboxEvents',
  method: 'get',
  path: '/sandboxes/{id}/events',
  tag,
  about: "The tenant's events that name this sandbox; resumes and starts like `/events/stream`.",
  scope: 'sandboxes:read',
  query: z.object({
    from: z.enum(['start', 'now']).optional(),
    last_event_id: z.string().max(200).optional(),
  }),
  answers: stream,
});

export const watchFiles = defineRoute({
  id: 'watchSandboxFiles',
  method: 'get',
  path: '/sandboxes/{id}/files/watch',
  tag: 'Sandbox files',
  about:
    'Changes of files from now on, as frames `{type: created|modified|deleted, path, size_bytes, is_dir}`. Dependencies, caches, `.git`, `.env` and what `.kilnignore` names are not watched.',
  scope: 'sandboxes:read',
  query: z.object({ path: z.string().min(1).max(4096).optional() }),
  answers: stream,
});
