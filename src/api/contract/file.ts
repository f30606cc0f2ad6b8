import { z } from '@hono/zod-openapi';
import { defineRoute, ok, opt, Time } from './route.ts';

const tag = 'Sandbox files';
const Path = z.string().min(1).max(4096);
const PathQuery = z.object({ path: Path.optional() });

export const Entry = z
  .object({
    name: z.string(),
    path: z.string(),
    size: z.number(),
    is_dir: z.boolean(),
    modified_at: Time,
  })
  .openapi('FileEntry');

const Stat = z
  .object({
    path: z.string(),
    size: z.number(),
    is_dir: z.boolean(),
    mode: z.number(),
    modified_at: Time,
  })
  .openapi('FileStat');

export interface TreeNode {
  path: string;
  name: string;
  type: 'file' | 'dir';
  size: number;
  modified_at: string;
  children?: TreeNode[];
}
const Tree: z.ZodType<TreeNode> = z
  .object({
    path: z.string(),
    name: z.string(),
    type: z.enum(['file', 'dir']),
    size: z.number(),
    modified_at: Time,
    get children() {
      return z.array(Tree).optional();
    },
  })
  .openapi('FileTree');

const Written = z.object({ path: z.string(), size_bytes: z.number() });

export const writeFile = defineRoute({
  id: 'writeFile',
  method: 'post',
  path: '/sandboxes/{id}/files',
  tag,
  about: 'Writes one file whole; parents are made, an old file is replaced at once.',
  scope: 'sandboxes:write',
  size: 'file',
  body: z.object({ path: Path, content: z.string().openapi({ description: 'Base64.' }) }),
  answers: {
    201: {
      about: 'Written.',
      schema: z.object({ path: z.string(), size: z.number(), size_bytes: z.number() }),
    },
  },
});

/** Newer clients use these three first, and the older spellings when they are answered with 404. */
export const writeFileNew = defineRoute({
  id: 'writeFileNew',
  method: 'post',
  path: '/sandboxes/{id}/fs/write',
  tag,
  about: 'The same with `content` as it is, or `content_base64`.',
  scope: 'sandboxes:write',
  size: 'file',
  body: z.object({ path: Path, content: opt(z.string()), content_base64: opt(z.string()) }),
  answers: writeFile.answers,
});

export const downloadFileNew = defineRoute({
  id: 'downloadFileNew',
  method: 'get',
  path: '/sandboxes/{id}/fs/download',
  tag,
  about: 'The bytes of a file.',
  scope: 'sandboxes:read',
  query: z.object({ path: Path }),
  answers: { 200: { about: 'The file.', media: ['application/octet-stream'] } },
});

export const writeManyFiles = defineRoute({
  id: 'writeManyFiles',
  method: 'post',
  path: '/sandboxes/{id}/files/write-many',
  tag,
  about: 'Writes many files; each succeeds or fails on its own.',
  scope: 'sandboxes:write',
  size: 'file',
  body: z.object({
    files: z
      .array(z.object({ path: Path, content_base64: opt(z.string()), content: opt(z.string()) }))
      .max(10_000),
  }),
  answers: ok(
    z.object({
      written: z.array(Written),
      failed: z.array(z.object({ path: z.string(), error: z.string() })),
    }),
  ),
});

const listing = <S extends string>(id: string, path: S) =>
  defineRoute({
    id,
    method: 'get',
    path,
    tag,
    about: 'Entries of a folder; with `depth`, of its folders as well. At most 10,000 (`truncated` tells).',
    scope: 'sandboxes:read',
    query: PathQuery.extend({ depth: z.coerce.number().int().min(1).max(32).optional() }),
    answers: ok(z.object({ path: z.string(), entries: z.array(Entry), truncated: z.boolean() })),
  });
export const listFiles = listing('listFiles', '/sandboxes/{id}/files');
export const listFilesAlias = listing('listFilesAlias', '/sandboxes/{id}/files/list');

export const statFile = defineRoute({
  id: 'statFile',
  method: 'post',
  path: '/sandboxes/{id}/files/stat',
  tag,
  about: 'Size, kind, mode and time of one path.',
  scope: 'sandboxes:read',
  idempotent: false,
  body: z.object({ path: Path }),
  answers: ok(Stat),
});

export const statFileNew = defineRoute({
  id: 'statFileNew',
  method: 'post',
  path: '/sandboxes/{id}/fs/stat',
  tag,
  about: 'The same in the newer spelling.',
  scope: 'sandboxes:read',
  idempotent: false,
  body: z.object({ path: Path }),
  answers: ok(Stat),
});

export const treeFiles = defineRoute({
  id: 'treeFiles',
  method: 'get',
  path: '/sandboxes/{id}/files/tree',
  tag,
  about: 'A folder as a tree, 3 levels deep unless told otherwise.',
  scope: 'sandboxes:read',
  query: PathQuery.extend({ depth: z.coerce.number().int().min(1).max(32).optional() }),
  answers: ok(Tree),
});

export const readFileText = defineRoute({
  id: 'readFileText',
  method: 'get',
  path: '/sandboxes/{id}/files/read',
  tag,
  about: 'A file as text in JSON; base64 when it is not UTF-8 (`encoding` tells).',
  scope: 'sandboxes:read',
  query: z.object({ path: Path }),
  answers: ok(
    z.object({
      path: z.string(),
      content: z.string(),
      encoding: z.enum(['utf-8', 'base64']),
      size: z.number(),
    }),
  ),
});

export const downloadFile = defineRoute({
  id: 'downloadFile',
  method: 'get',
  path: '/sandboxes/{id}/files/{path*}',
  tag,
  about:
    'The bytes of a file. A caller that percent-encodes the slashes of the path, or sends `Content-Type: application/json`, gets JSON with base64.',
  scope: 'sandboxes:read',
  answers: {
    200: {
      about: 'The file.',
      media: ['application/octet-stream'],
      schema: z.object({
        data: z.object({ path: z.string(), content: z.string(), size: z.number() }),
      }),
    },
  },
});

export const deleteFile = defineRoute({
  id: 'deleteFile',
  method: 'delete',
  path: '/sandboxes/{id}/files',
  tag,
  about: 'Removes a file, or with `recursive=true` a folder.',
  scope: 'sandboxes:write',
  query: z.object({ path: Path, recursive: z.enum(['true', 'false']).optional() }),
  answers: ok(z.object({ path: z.string(), deleted: z.literal(true) })),
});

export const putArchive = defineRoute({
  id: 'putArchive',
  method: 'put',
  path: '/sandboxes/{id}/archive',
  tag,
  about:
    'Unpacks a tar or tar.gz body into the workspace as it arrives. `clear=true` replaces what is there, but only once the archive is whole.',
  scope: 'sandboxes:write',
  takes: 'raw',
  size: 'archive',
  query: PathQuery.extend({
    clear: z.enum(['true', 'false']).optional(),
    sha256: z
      .string()
      .regex(/^[0-9a-f]{64}$/)
      .optional(),
  }),
  answers: ok(z.object({ files: z.number(), bytes: z.number(), sha256: z.string() })),
});

/** As source/manifest.ts makes it. */
const ManifestEntry = z
  .object({
    path: z.string().min(1).max(4096),
    type: z.enum(['file', 'dir', 'symlink']),
    size: z.number().int().min(0),
    mode: z.number().int().min(0).max(0o7777),
    sha256: z
      .string()
      .regex(/^[0-9a-f]{64}$/)
      .optional(),
    target: z.string().max(4096).optional(),
  })
  .openapi('ManifestEntry');

export const syncFiles = defineRoute({
  id: 'syncFiles',
  method: 'post',
  path: '/sandboxes/{id}/sync',
  tag,
  about:
    'Says which files of the manifest the workspace lacks (by content hash), to be uploaded next, and removes those the manifest does not have.',
  scope: 'sandboxes:write',
  size: 'file',
  idempotent: false,
  body: z.object({
    manifest: z.array(ManifestEntry).max(200_000),
  }),
  answers: ok(z.object({ missing: z.array(z.string()), deleted: z.number().int() })),
});
