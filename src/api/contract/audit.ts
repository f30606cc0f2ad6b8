import { z } from '@hono/zod-openapi';
import { defineRoute, listOf, ok, PageQuery, Time } from './route.ts';

export const AuditLine = z
  .object({
    id: z.string(),
    key_id: z.string(),
    key_name: z.string(),
    action: z.string().openapi({ description: 'The operationId of the call.' }),
    method: z.string(),
    path: z.string(),
    params: z.record(z.string(), z.string()),
    fields: z.array(z.string()).openapi({ description: 'Names of the fields sent; never their values.' }),
    remote_address: z.string().nullable(),
    user_agent: z.string().nullable(),
    request_id: z.string(),
    status: z.number().int().nullable().openapi({ description: 'Null: the engine ended before the answer.' }),
    error_code: z.string().nullable(),
    created_at: Time,
    finished_at: Time.nullable(),
  })
  .openapi('AuditLine');

export const listAuditLog = defineRoute({
  id: 'listAuditLog',
  method: 'get',
  path: '/audit',
  tag: 'Audit',
  about: 'Every change asked for, refused ones included, newest first; kept for a year.',
  scope: 'audit:read',
  query: z.object({
    ...PageQuery.shape,
    key_id: z.string().max(200).optional(),
    action: z.string().max(200).optional(),
    object_id: z.string().max(200).optional(),
  }),
  answers: ok(listOf(AuditLine)),
});
