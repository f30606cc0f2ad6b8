import { z } from '@hono/zod-openapi';
import { defineRoute } from './route.ts';

export const streamEvents = defineRoute({
  id: 'streamEvents',
  method: 'get',
  path: '/events/stream',
  tag: 'Events',
  about:
    'Everything that happens, in order. `Last-Event-ID` (or `last_event_id`) resumes after that event without a gap; an id that retention has removed starts with the oldest event kept. `types` is a comma list of globs (`deployment.*`).',
  scope: 'deployments:read',
  query: z.object({
    types: z.string().max(1000).optional(),
    last_event_id: z.string().max(200).optional(),
    deployment_id: z.string().max(200).optional(),
    operation_id: z.string().max(200).optional(),
    from: z.enum(['start', 'now']).optional(),
  }),
  answers: { 200: { about: 'Server-sent events.', media: ['text/event-stream'] } },
});
