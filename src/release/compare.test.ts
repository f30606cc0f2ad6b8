import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compareArtifacts } from './compare.ts';
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
