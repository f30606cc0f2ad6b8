import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BlobMismatch } from '../release/oci/store.ts';
import { DigestMismatch } from '../source/extract.ts';
import { engineFailure } from './engine-failure.ts';

test('an artifact that is not what its digest says has a code of its own, and a way out', () => {
  const digest = 'a'.repeat(64);
  for (const error of [new DigestMismatch(digest, null), new BlobMismatch(`sha256:${digest}`, 'cut short')]) {
    const { code, fault, retryable, next_step } = engineFailure('health', error);
    assert.deepEqual([code, fault, retryable], ['ARTIFACT_CORRUPT', 'engine', true]);
    assert.match(next_step, /publish again/);
  }
  // A source may have been read badly once; stage 2 has looked again before it says that it is damaged.
  assert.equal(engineFailure('plan', new DigestMismatch(digest, null)).code, 'STORAGE_FAILED');
});
