import { z } from '@hono/zod-openapi';
import { defineRoute, enveloped, ok, opt } from './route.ts';

const tag = 'Releases';

export const exportRelease = defineRoute({
  id: 'exportRelease',
  method: 'get',
  path: '/releases/{release_id}/image',
  tag,
  about:
    'The OCI image of a release as an image layout in a tar, as `skopeo copy oci-archive:` and `docker load` (25 and later) read it. 422 for releases that are no images.',
  scope: 'deployments:read',
  answers: { 200: { about: 'The archive.', media: ['application/x-tar'] } },
});

export const pushRelease = defineRoute({
  id: 'pushRelease',
  method: 'post',
  path: '/releases/{release_id}/push',
  tag,
  about:
    'Pushes the OCI image of a release to a registry that the engine may push to. What the registry has already is not sent again.',
  scope: 'deployments:publish',
  body: z.object({
    reference: z.string().min(1).max(1024).openapi({ description: '`host/repository:tag`' }),
    username: opt(z.string().max(1000)),
    password: opt(z.string().max(10_000)).openapi({ description: 'Or a token. Kept nowhere.' }),
  }),
  answers: ok(
    enveloped(
      z.object({
        reference: z.string().openapi({ description: 'By digest: the same image for ever.' }),
        sent_bytes: z.number().int(),
        skipped_blobs: z.number().int(),
      }),
    ),
  ),
});
