import { z } from '@hono/zod-openapi';
import { defineRoute, enveloped, ok } from './route.ts';

const tag = 'The house';
/** The doctor's report belongs to the engine and grows with it; the CLI prints it. */
const Report = z.record(z.string(), z.unknown());

const GcItem = z.object({ key: z.string(), kind: z.string(), size_bytes: z.number(), reason: z.string() });
const GcReport = z
  .object({
    dry_run: z.boolean(),
    removed: z.array(GcItem),
    kept: z.array(GcItem),
    removed_bytes: z.number(),
  })
  .openapi('GcReport');

export const runGc = defineRoute({
  id: 'runGc',
  method: 'post',
  path: '/gc',
  tag,
  about: 'Collects what retention allows; `dry_run=true` says what would go and why the rest stays.',
  scope: '*',
  idempotent: false,
  query: z.object({ dry_run: z.enum(['true', 'false']).optional() }),
  answers: ok(enveloped(GcReport)),
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
