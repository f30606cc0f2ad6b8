import { z } from '@hono/zod-openapi';
import {
  AttributionFields,
  Deleted,
  defineRoute,
  enveloped,
  listOf,
  MetadataInput,
  NameInput,
  ok,
  opt,
  PageQuery,
  Time,
} from './route.ts';
import { Sandbox } from './sandbox.ts';

const tag = 'Sandbox snapshots';

export const Snapshot = z
  .object({
    id: z.string(),
    sandbox_id: z.string(),
    status: z.literal('ready'),
    comment: z.string().nullable(),
    keep: z.boolean(),
    retention_seconds: z.number().nullable(),
    last_used_at: Time.nullable(),
    expires_at: Time.nullable(),
    sha256: z.string(),
    size_bytes: z.number(),
    files: z.number(),
    secrets_left_out: z.array(z.string()),
    tenant_id: z.string(),
    workspace_id: z.string(),
    project_id: z.string(),
    ...AttributionFields,
    created_at: Time,
    updated_at: Time,
  })
  .openapi('SandboxSnapshot');
export type SnapshotView = z.infer<typeof Snapshot>;

const YEARS_S = 10 * 365 * 86_400;
const Lifetime = opt(z.number().int().min(1).max(YEARS_S));

const Create = z.object({
  comment: opt(z.string().max(2000)),
  keep: opt(z.boolean()),
  retention_seconds: Lifetime,
  expiration_seconds: Lifetime,
  expiration: opt(z.union([z.number().int().min(1).max(YEARS_S), z.string().max(20)])).openapi({
    description: 'Seconds, or a number with its unit: 90s, 30m, 12h, 7d.',
  }),
  expiration_days: opt(z.number().int().min(1).max(3650)),
});
export type CreateSnapshot = z.infer<typeof Create>;

export const createSnapshot = defineRoute({
  id: 'createSandboxSnapshot',
  method: 'post',
  path: '/sandboxes/{id}/snapshots',
  tag,
  about:
    'Stores the workspace as it is, without files that hold secrets (`secrets_left_out` names them). It outlives the sandbox, until it expires or is deleted; without a lifetime it stays.',
  scope: 'sandboxes:write',
  body: Create,
  answers: { 201: { about: 'The snapshot.', schema: enveloped(Snapshot) } },
});

export const createSnapshotAlias = defineRoute({
  id: 'createSandboxSnapshotAlias',
  method: 'post',
  path: '/sandboxes/{id}/snapshot',
  tag,
  about: 'The same, answered with the id alone.',
  scope: 'sandboxes:write',
  body: Create,
  answers: {
    201: {
      about: 'Its id.',
      schema: z.object({ snapshot_id: z.string(), id: z.string(), status: z.literal('ready') }),
    },
  },
});

export const listSnapshots = defineRoute({
  id: 'listSandboxSnapshots',
  method: 'get',
  path: '/sandboxes/{id}/snapshots',
  tag,
  about: 'Snapshots of one sandbox, newest first, also of a destroyed one.',
  scope: 'sandboxes:read',
  query: PageQuery,
  answers: ok(listOf(Snapshot)),
});

export const getSnapshot = defineRoute({
  id: 'getSandboxSnapshot',
  method: 'get',
  path: '/sandboxes/{id}/snapshots/{snapshot_id}',
  tag,
  about: 'One snapshot.',
  scope: 'sandboxes:read',
  answers: ok(enveloped(Snapshot)),
});

export const deleteSnapshot = defineRoute({
  id: 'deleteSandboxSnapshot',
  method: 'delete',
  path: '/sandboxes/{id}/snapshots/{snapshot_id}',
  tag,
  about: 'Deletes it; retention frees its bytes.',
  scope: 'sandboxes:write',
  answers: ok(Deleted),
});

const made = { 201: { about: 'A new sandbox.', schema: Sandbox } };

export const restoreSnapshot = defineRoute({
  id: 'restoreSandboxSnapshot',
  method: 'post',
  path: '/sandboxes/{id}/restore/{snapshot_id}',
  tag,
  about: 'Makes a new sandbox with the files of the snapshot and the variables and settings of the sandbox.',
  scope: 'sandboxes:write',
  body: z.object({ name: opt(NameInput), metadata: opt(MetadataInput) }),
  answers: made,
});

export const forkSandbox = defineRoute({
  id: 'forkSandbox',
  method: 'post',
  path: '/sandboxes/{id}/fork',
  tag,
  about:
    'Makes a new sandbox like this one, with all its files as they are now, or with those of `snapshot_id`. Running commands are not copied.',
  scope: 'sandboxes:write',
  body: z.object({
    snapshot_id: opt(z.string().max(200)),
    name: opt(NameInput),
    metadata: opt(MetadataInput),
    external_user_id: opt(z.string().max(200)),
    timeout_sec: opt(z.number().int().min(1).max(31_536_000)),
    template_id: opt(z.string().max(200)),
  }),
  answers: made,
});
