import { z } from '@hono/zod-openapi';
import { defineRoute, enveloped, opt, Time } from './route.ts';

const tag = 'Sandbox files';
const Path = z.string().min(1).max(4096);
const FileName = z.string().min(1).max(200);
export const MAX_PATHS = 1000;

const Export = z
  .object({
    id: z.string(),
    sandbox_id: z.string(),
    label: z.string(),
    status: z.literal('ready'),
    files: z.array(
      z.object({
        path: z.string(),
        filename: z.string(),
        size_bytes: z.number(),
        is_dir: z.boolean(),
        download_url: z.string(),
      }),
    ),
    archive_download_url: z.string(),
    created_at: Time,
  })
  .openapi('SandboxExport');
export type ExportView = z.infer<typeof Export>;

export const createExport = defineRoute({
  id: 'createSandboxExport',
  method: 'post',
  path: '/sandboxes/{id}/exports',
  tag,
  about:
    'Addresses to download files and folders from, with the same key: each alone, and all as one tar.gz. They give what is there at the time of the download.',
  scope: 'sandboxes:read',
  idempotent: false,
  body: z.object({
    path: opt(Path),
    paths: opt(z.array(Path).max(MAX_PATHS)),
    label: opt(z.string().max(200)),
    filename: opt(FileName),
  }),
  answers: { 201: { about: 'The export.', schema: enveloped(Export) } },
});

export const downloadExport = defineRoute({
  id: 'downloadSandboxExport',
  method: 'get',
  path: '/sandboxes/{id}/exports/download',
  tag,
  about:
    'One file as it is; a folder, or several `paths[]`, as tar.gz. All bytes are those of one moment, or the answer is an error.',
  scope: 'sandboxes:read',
  query: z.object({
    path: Path.optional(),
    'paths[]': Path.optional().openapi({ description: 'May be given many times.' }),
    filename: FileName.optional(),
  }),
  answers: {
    200: { about: 'The bytes.', media: ['application/octet-stream', 'application/gzip'] },
  },
});
