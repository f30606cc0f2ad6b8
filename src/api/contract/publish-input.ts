/** What a publish takes, on all of its paths. */
import { z } from '@hono/zod-openapi';
import { AttributionInput, MetadataInput, NameInput, opt } from './route.ts';

const printable = (text: string) => !text.includes('\0');

export const Command = z.string().min(1).max(16_384).refine(printable, { message: 'must not hold NUL' });
export const Port = z.number().int().min(1).max(65_535);
export const HealthPath = z
  .string()
  .max(2048)
  .regex(/^\/[!-~]*$/, { message: 'must start with / and hold only printable ASCII without spaces' });
export const Environment = z
  .string()
  .max(63)
  .regex(/^[A-Za-z0-9][A-Za-z0-9._/-]*$/, { message: 'must be letters, digits, and inner . _ / -' });

const folder = () => opt(z.string().max(4096).refine(printable, { message: 'must not hold NUL' }));
/** Asks for what this engine does not have; anything but empty is refused with UNSUPPORTED, never ignored. */
const anything = () => opt(z.unknown());

export const PublishFields = {
  kind: opt(z.enum(['auto', 'static', 'dynamic', 'server'])),
  type: opt(z.enum(['auto', 'static', 'dynamic', 'server'])),
  mode: opt(z.enum(['auto', 'static', 'dynamic', 'server'])),
  output_path: folder(),
  path: folder(),
  source_path: folder(),
  source_snapshot_path: folder(),
  root: folder(),
  install_command: opt(Command),
  build_command: opt(Command),
  run_command: opt(Command),
  start_command: opt(Command),
  port: opt(Port),
  health_check_path: opt(HealthPath),
  entrypoint: opt(z.string().max(4096)),
  spa: opt(z.boolean()),
  environment: opt(Environment),
  promote: opt(z.boolean()),
  grace_ms: opt(z.number().int().min(0).max(3_600_000)),
  grace_sec: opt(z.number().min(0).max(3600)),
  startup_timeout_ms: opt(z.number().int().min(1000).max(3_600_000)),
  reuse: opt(z.boolean()),
  include_git: opt(z.boolean()),
  env: opt(z.record(z.string(), z.string())),
  metadata: opt(MetadataInput),
  ...AttributionInput,
  deployment_type: opt(z.string().max(200)),
  database: anything(),
  data_services: anything(),
  domain: opt(z.string().max(300)),
  custom_domain: opt(z.string().max(300)),
};

export const PublishBody = z.object({ source_sandbox_id: z.string().min(1).max(200), ...PublishFields });

export const BridgeBody = z.object({
  deployment_id: opt(z.string().max(200)),
  name: opt(NameInput),
  slug: opt(
    z.string().regex(/^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$/, {
      message: 'must be 1 to 40 lower-case letters, digits and inner hyphens',
    }),
  ),
  ...PublishFields,
});

const Shared = z.object(PublishFields);
export type PublishFields = z.infer<typeof Shared>;
