import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KilnError } from '../domain/errors.ts';
import type { Plan } from '../domain/plan.ts';
import { invalidImage } from '../release/oci/manifest.ts';
import { BlobMismatch } from '../release/oci/store.ts';
import { ArtifactTooLarge, TreeUnreadable } from '../source/pack.ts';
import { outputFailure } from './output-failure.ts';

const plan = { output_path: 'dist' } as Plan;
const blob = new BlobMismatch(`sha256:${'a'.repeat(64)}`, 'the archive has other bytes under its name');

for (const [what, is_image, error, code] of [
  ['too large', false, new ArtifactTooLarge(2e9, 1e9), 'ARTIFACT_TOO_LARGE'],
  ['too many files', false, new KilnError('SOURCE_TOO_LARGE', 'It holds more.'), 'ARTIFACT_TOO_LARGE'],
  ['an image that is too large', true, new KilnError('SOURCE_TOO_LARGE', 'It is.'), 'ARTIFACT_TOO_LARGE'],
  ['a bad name', false, new TreeUnreadable('dist/x', 'has a name'), 'OUTPUT_UNREADABLE'],
  ['a link to elsewhere', false, new KilnError('FORBIDDEN_PATH', 'It leaves.'), 'OUTPUT_UNREADABLE'],
  ['an archive that is no image', true, invalidImage('The archive is no image'), 'OUTPUT_UNREADABLE'],
  ['an image for another machine', true, new KilnError('UNSUPPORTED', 'Not for this.'), 'OUTPUT_UNREADABLE'],
  ['an image with wrong bytes', true, blob, 'OUTPUT_UNREADABLE'],
  ['a base with wrong bytes', false, blob, null],
  ['a base that is no image', false, invalidImage('The manifest is no JSON'), null],
  ['a full disk', false, Object.assign(new Error('ENOSPC'), { code: 'ENOSPC' }), null],
  ['a store that fails', true, new KilnError('STORAGE_FAILED', 'It fails.'), null],
] as const)
  test(`${what}: ${code ?? 'says nothing of the output'}`, () => {
    const found = outputFailure(plan, is_image, error);
    assert.equal(found?.code ?? null, code);
    if (found) {
      assert.deepEqual([found.fault, found.stage, found.retryable], ['user', 'release', false]);
      assert.ok(!/\.\./.test(found.message), found.message);
    }
  });
