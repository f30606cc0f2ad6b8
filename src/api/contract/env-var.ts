import { z } from '@hono/zod-openapi';
import { Environment } from './publish-input.ts';
import { defineRoute, enveloped, ok, opt, Time } from './route.ts';

export const EnvPreview = z
  .object({
    name: z.string(),
    key: z.string(),
    preview: z.string(),
    is_secret: z.boolean(),
    at_build: z.boolean(),
    environment: z.string(),
    created_at: Time,
    updated_at: Time,
  })
  .openapi('EnvVar');
export type EnvPreviewView = z.infer<typeof EnvPreview>;

const tag = 'Environment variables';
const InEnvironment = z.object({ environment: Environment.optional() });
const list = ok(enveloped(z.array(EnvPreview)));

export const listEnv = defineRoute({
  id: 'listEnv',
  method: 'get',
  path: '/deployments/{id}/env',
  tag,
  about: 'Names with previews; values are never returned, secret ones not even in part.',
  scope: 'deployments:read',
  query: InEnvironment,
  answers: list,
});

export const setEnv = defineRoute({
  id: 'setEnv',
  method: 'post',
  path: '/deployments/{id}/env',
  tag,
  about:
    'Sets the variables named, keeps the others; the next publish sees them. Without `is_secret` the name decides, and a variable that was secret stays so.',
  scope: 'deployments:write',
  query: InEnvironment,
  body: z.object({
    env: opt(z.record(z.string(), z.string())),
    vars: opt(
      z
        .array(
          z.object({
            name: opt(z.string()),
            key: opt(z.string()),
            value: z.string(),
            is_secret: opt(z.boolean()),
            at_build: opt(z.boolean()),
          }),
        )
        .max(200),
    ),
    environment: opt(Environment),
  }),
  answers: list,
});

export const deleteEnv = defineRoute({
  id: 'deleteEnv',
  method: 'delete',
  path: '/deployments/{id}/env/{name}',
  tag,
  about: 'Removes one variable; the next publish no longer has it.',
  scope: 'deployments:write',
  query: InEnvironment,
  answers: ok(z.object({ name: z.string(), deleted: z.literal(true) })),
});
