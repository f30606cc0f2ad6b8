import { z } from '@hono/zod-openapi';
import { defineRoute, enveloped, listOf, NameInput, ok, opt, PageQuery, Time } from './route.ts';

export const SCOPES = [
  '*',
  'sandboxes:read',
  'sandboxes:write',
  'deployments:read',
  'deployments:write',
  'deployments:publish',
  'deployments:promote',
  'deployments:propose',
  'domains:write',
  'data:write',
  'usage:read',
  'audit:read',
  'keys:write',
  'webhooks:write',
] as const;

export const Key = z
  .object({
    id: z.string(),
    name: z.string(),
    key_prefix: z.string(),
    key_type: z.string(),
    key_purpose: z.string().nullable(),
    scopes: z.array(z.enum(SCOPES)),
    project_id: z.string().nullable(),
    rate_limit_rpm: z.number().int(),
    status: z.enum(['active', 'expired', 'revoked']),
    expires_at: Time.nullable(),
    revoked_at: Time.nullable(),
    last_used_at: Time.nullable(),
    created_at: Time,
  })
  .openapi('ApiKey');
export type KeyView = z.infer<typeof Key>;

const tag = 'API keys';
const scope = 'keys:write' as const;

export const listKeys = defineRoute({
  id: 'listApiKeys',
  method: 'get',
  path: '/api-keys',
  tag,
  about: 'Keys, newest first; never the key itself.',
  scope,
  query: PageQuery,
  answers: ok(listOf(Key)),
});

export const createKey = defineRoute({
  id: 'createApiKey',
  method: 'post',
  path: '/api-keys',
  tag,
  about: 'Makes a key and shows it this once. It can do no more than the key that makes it.',
  scope,
  body: z.object({
    name: NameInput,
    key_type: opt(z.string().max(50)),
    purpose: opt(z.string().max(200)),
    key_purpose: opt(z.string().max(200)),
    scopes: opt(z.array(z.enum(SCOPES)).min(1).max(20)),
    project_id: opt(z.string().max(200)),
    rate_limit_rpm: opt(z.number().int().min(1).max(1_000_000)),
    expires_in_sec: opt(z.number().int().min(1).max(315_360_000)),
    expires_at: opt(z.iso.datetime({ offset: true })).openapi({
      description: 'When it ends; the earlier one counts if both are given.',
    }),
  }),
  answers: {
    201: {
      about: 'The key, shown once.',
      schema: enveloped(Key.extend({ key: z.string() }).openapi('NewApiKey')),
    },
  },
});

export const revokeKey = defineRoute({
  id: 'revokeApiKey',
  method: 'delete',
  path: '/api-keys/{id}',
  tag,
  about: 'Revokes a key; it stops working with the next request.',
  scope,
  answers: ok(z.object({ id: z.string(), deleted: z.literal(true), status: z.literal('revoked') })),
});
