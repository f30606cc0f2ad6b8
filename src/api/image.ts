/** Releases that are OCI images, given away: as a file, or into a registry. */
import { Readable } from 'node:stream';
import { data, handle, type Mounted } from './call.ts';
import * as contract from './contract/image.ts';
import { findRelease } from './find.ts';

export const imageHandlers: Mounted[] = [
  handle(contract.exportRelease, async (call) => {
    const release = await findRelease(call, null, call.params.release_id);
    const body = await call.deps.engine.exportRelease(release);
    return new Response(Readable.toWeb(body) as ReadableStream<Uint8Array>, {
      headers: {
        'content-type': 'application/x-tar',
        'content-disposition': `attachment; filename="${release.id}.tar"`,
        'x-content-type-options': 'nosniff',
      },
    });
  }),
  handle(contract.pushRelease, async (call) => {
    const release = await findRelease(call, null, call.params.release_id);
    const { reference, username, password } = call.body;
    const to = { reference, username: username ?? null, password: password ?? null };
    return data(await call.deps.engine.pushRelease(release, to, call.signal));
  }),
];
