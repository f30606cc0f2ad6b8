import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { KilnError } from '../domain/errors.ts';
import { faultyObjectStore } from '../store/objects/faulty.ts';
import type { ObjectStore } from '../store/objects/port.ts';
import { compareArtifacts } from './compare.ts';
import { imageOf, place } from './oci/layers.fixtures.ts';
import { blobKey } from './oci/store.ts';
import { MemoryObjects, storeRelease } from './static-site.fixture.ts';

test('names the paths in which two releases differ', async () => {
  const objects = new MemoryObjects();
  const one = await storeRelease(objects, { 'a.html': 'a', 'b.html': 'b', 'c.html': 'c' });
  const other = await storeRelease(objects, { 'a.html': 'a', 'b.html': 'B', 'd.html': 'd' });
  const release = (of: typeof one) => ({ ...of, kind: 'static' as const, objects });
  assert.equal((await compareArtifacts(release(one), release(one))).reproducible, true);
  const { reproducible, differences, differences_total } = await compareArtifacts(
    release(one),
    release(other),
  );
  assert.equal(reproducible, false);
  assert.equal(differences_total, 3);
  assert.deepEqual(differences, [
    { path: 'b.html', what: 'content' },
    { path: 'c.html', what: 'missing' },
    { path: 'd.html', what: 'added' },
  ]);
});

test('a layer that cannot be read to its end is an error of the comparison, not the end of the process', async () => {
  await using at = await place();
  const content = randomBytes(300_000).toString('hex');
  const one = await imageOf(at.objects, [[{ name: 'a', content }]]);
  const other = await imageOf(at.objects, [[{ name: 'a', content: `${content}!` }]]);
  const release = (of: typeof one, objects: ObjectStore) => ({
    ...{ kind: 'oci' as const, object_key: blobKey(of.digest), sha256: of.digest.slice('sha256:'.length) },
    objects,
  });
  // Manifest and configuration come before the layer.
  const breaking = faultyObjectStore(at.objects, [{ operation: 'get', nth: 3, kind: 'short_read' }]);
  await assert.rejects(
    compareArtifacts(release(one, breaking), release(other, at.objects)),
    (error) => error instanceof KilnError && error.code === 'STORAGE_FAILED',
  );
  const cut = faultyObjectStore(at.objects, [{ operation: 'get', nth: 3, kind: 'truncated' }]);
  await assert.rejects(compareArtifacts(release(one, cut), release(other, at.objects)), {
    code: 'Z_BUF_ERROR',
  });
});
