import { z } from '@hono/zod-openapi';
import { defineRoute, enveloped, ok } from './route.ts';

const tag = 'The house';
/** The reports belong to the engine and grow with it; the CLI prints them. */
const Report = z.record(z.string(), z.unknown());

export const runGc = defineRoute({
  id: 'runGc',
  method: 'post',
  path: '/gc',
  tag,
  about: 'Collects what retention allows; `dry_run=true` says what would go and why the rest stays.',
  scope: '*',
  idempotent: false,
  query: z.object({ dry_run: z.enum(['true', 'false']).optional() }),
  answers: ok(enveloped(Report)),
});

export const doctor = defineRoute({
  id: 'doctor',
  method: 'get',
  path: '/doctor',
  tag,
  about: 'What works on this machine, and disk use by kind.',
  scope: '*',
  answers: ok(enveloped(Report)),
});
