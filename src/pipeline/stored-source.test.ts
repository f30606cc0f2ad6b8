import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { tempDir } from '../../test/support/folders.ts';
import { makeVerifier } from '../release/verify.ts';
import { fileObjectStore } from '../store/objects/files.ts';
import type { Run } from './run.ts';
import { layOut } from './stored-source.ts';

const KEY = `sources/${'a'.repeat(64)}.tar.zst`;

test('laying out a source ends with a cancel; one that is gone or damaged is a failure with a code', async () => {
  const dir = await tempDir('source');
  try {
    const objects = fileObjectStore(path.join(dir, 'objects'));
    const run = (signal: AbortSignal) =>
      ({
        ...{ objects, signal, verifier: makeVerifier(objects), deployment: { id: 'dep_1' } },
        ...{ version: { source_sha256: 'a'.repeat(64), version_number: 7 } },
        ...{
          limits: { source: { max_bytes: 1e6, max_files: 100 } },
          workDir: (id: string) => path.join(dir, id),
        },
      }) as unknown as Run;
    const going = new AbortController().signal;
    const gone = await layOut(run(going), KEY);
    assert.equal(gone.ok === false && gone.failure.code, 'SOURCE_GONE');
    await objects.put(KEY, Readable.from([Buffer.alloc(10_000, 'not a tar')]));
    const damaged = await layOut(run(going), KEY);
    assert.equal(damaged.ok === false && damaged.failure.code, 'ARTIFACT_CORRUPT');
    const reason = new Error('it was cancelled');
    await assert.rejects(layOut(run(AbortSignal.abort(reason)), KEY), reason);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
});
